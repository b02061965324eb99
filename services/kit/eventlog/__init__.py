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
from services.kit.eventlog.segment import Segment, run_segment

__all__ = [
    "Attempt",
    "EventLog",
    "NewEvent",
    "Occupancy",
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
