"""Jobs of auth."""

from typing import Final

from services.kit.jobs import CronJob

PURGE: Final = CronJob(
    "purge", "@every 1h", "Delete expired sessions, revocations, charges and audit events."
)
PURGE_ACCESS_FEED: Final = CronJob(
    "purge-access-feed", "@every 1m", "Delete access changes that every reader has seen."
)
JOBS: Final = (PURGE, PURGE_ACCESS_FEED)
