"""Records of the event log: streams, events, attempts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


class StaleAttempt(Exception):
    """The stream is closed or has a newer attempt: the writer must stop."""


@dataclass(frozen=True, slots=True)
class NewStream:
    """A stream to open: one piece of durable work.

    `owner` is the user who requested it, `subject` the object that it concerns, `input` JSON of at most 16 KiB for the
    attempts. After `deadline` recovery ends the stream.
    """

    stream_id: str
    kind: str
    owner: str
    subject: str
    deadline: datetime | None = None
    input: Any = None


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to append; `terminal` closes the stream."""

    type: str
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])
    terminal: bool = False


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as stored; `data` is the JSON text, the same bytes for every reader."""

    seq: int
    type: str
    attempt: int
    data: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class StreamHead:
    """The row of a stream, without its events."""

    stream_id: str
    kind: str
    owner: str
    subject: str
    first_seq: int
    """The first event that is kept; above 1 after compaction."""
    last_seq: int
    attempt: int
    host: str | None
    deadline: datetime | None
    closed_at: datetime | None
    cancel_requested_at: datetime | None
    cancel_acknowledged_at: datetime | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt at a stream; only the newest one can write."""

    stream: NewStream
    number: int
    last_seq: int = 0
    cancel_requested: bool = False
    checkpoints: Mapping[str, Any] = field(default_factory=dict[str, Any])
    checkpoint_seq: int = 0
    """The seq of the last checkpoint: later attempts do not invalidate events up to it."""

    @property
    def stream_id(self) -> str:
        return self.stream.stream_id
