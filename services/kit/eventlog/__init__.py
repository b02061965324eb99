"""The event log: gap-free, append-only streams of events with the checkpoints that they announce."""

from services.kit.eventlog.log import Attempt, EventLog, NewEvent, StaleAttempt, StoredEvent, StreamHead
from services.kit.eventlog.segment import Segment, run_segment

__all__ = [
    "Attempt",
    "EventLog",
    "NewEvent",
    "Segment",
    "StaleAttempt",
    "StoredEvent",
    "StreamHead",
    "run_segment",
]
