"""Jobs of llm."""

from typing import Final

from services.kit.jobs import CronJob

PURGE: Final = CronJob(
    "purge", "@every 1m", "Delete expired events of turns, and expired idempotency records."
)
