"""The event log: gap-free, append-only streams of events with the checkpoints that they announce."""

from pathlib import Path

from services.kit.db import Database
from services.kit.eventlog.log import (
    Attempt,
    EventLog,
    NewEvent,
    Occupancy,
    StaleAttempt,
    StoredEvent,
    StreamHead,
)
from services.kit.eventlog.retention import ROWS_PER_BATCH, Purge, Retention
from services.kit.eventlog.segment import Segment, run_segment

__all__ = [
    "ROWS_PER_BATCH",
    "Attempt",
    "EventLog",
    "NewEvent",
    "Occupancy",
    "Purge",
    "Retention",
    "Segment",
    "StaleAttempt",
    "StoredEvent",
    "StreamHead",
    "migrate_event_log",
    "run_segment",
]


async def migrate_event_log(database: Database) -> None:
    """Bring the schema `events` to its newest revision."""
    await database.migrate("events", Path(__file__).parent.parent / "migrations")
