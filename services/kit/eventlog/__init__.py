"""The event log: append-only streams of events with checkpoints, and durable work on them."""

from pathlib import Path
from typing import Final

from services.kit.eventlog.durable import DurableWork, TerminalEvents
from services.kit.eventlog.engine import Engine, WorkKind
from services.kit.eventlog.host import HostLease
from services.kit.eventlog.log import EventLog
from services.kit.eventlog.records import (
    Attempt,
    NewEvent,
    NewStream,
    StaleAttempt,
    StoredEvent,
    StreamHead,
)
from services.kit.eventlog.retention import ROWS_PER_BATCH, Purge, Retention
from services.kit.eventlog.segment import RetryLater, Segment
from services.kit.storage.db import Database

__all__ = [
    "MIGRATIONS",
    "ROWS_PER_BATCH",
    "SCHEMA",
    "Attempt",
    "DurableWork",
    "Engine",
    "EventLog",
    "HostLease",
    "NewEvent",
    "NewStream",
    "Purge",
    "Retention",
    "RetryLater",
    "Segment",
    "StaleAttempt",
    "StoredEvent",
    "StreamHead",
    "TerminalEvents",
    "WorkKind",
    "migrate_event_log",
]

SCHEMA: Final = "events"
MIGRATIONS: Final = Path(__file__).parent / "migrations"


async def migrate_event_log(database: Database) -> None:
    """Bring the schema `events` to its newest revision."""
    await database.migrate(SCHEMA, MIGRATIONS)
