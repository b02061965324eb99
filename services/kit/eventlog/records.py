"""What the event log stores and tells."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


class StaleAttempt(Exception):
    """A newer attempt owns the stream, or it is closed: the writer must stop."""


@dataclass(frozen=True, slots=True)
class NewStream:
    """A stream to open: one piece of durable work.

    `owner` is the user who asked for it, `subject` the object that it is about. `input` is what an attempt needs
    besides these, as JSON of at most 16 KiB. An open stream is ended by recovery after its `deadline`.
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
    """What is known of a stream without reading its events."""

    stream_id: str
    kind: str
    owner: str
    subject: str
    first_seq: int
    """Where its events begin: later than 1 once the older ones are no longer kept."""
    last_seq: int
    attempt: int
    host: str | None
    deadline: datetime | None
    closed_at: datetime | None
    cancel_requested_at: datetime | None
    cancel_acknowledged_at: datetime | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """The right to write a stream, until a newer attempt begins."""

    stream: NewStream
    number: int
    last_seq: int = 0
    cancel_requested: bool = False
    checkpoints: Mapping[str, Any] = field(default_factory=dict[str, Any])
    checkpoint_seq: int = 0
    """The last seq that no later attempt takes back."""

    @property
    def stream_id(self) -> str:
        """The stream's id."""
        return self.stream.stream_id
