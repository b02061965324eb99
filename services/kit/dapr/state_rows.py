"""Rows of the state store, and what it promises: transactions under ETags."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class StateStoreError(Exception):
    """The state store, or the way to it, failed; the outcome of a write is unknown.

    `answered` where the store itself said no: a transaction that broke a condition is among these.
    """

    def __init__(self, message: str, *, answered: bool = False) -> None:
        super().__init__(message)
        self.answered = answered


class SidecarError(StateStoreError):
    """The sidecar, or what lies behind it, failed."""


class TooLarge(SidecarError):
    """The request or its answer is longer than a message may be (4 MiB)."""


@dataclass(frozen=True, slots=True)
class StoredValue:
    """A state row and the ETag under which it was read; `data` is empty where there is no row."""

    key: str
    data: bytes
    etag: str


class WriteMode(StrEnum):
    """What a write demands of the row: nothing, that it is new, or that it still has an ETag."""

    ANY = "ANY"
    NEW = "NEW"
    MATCH = "MATCH"


@dataclass(frozen=True, slots=True)
class StateWrite:
    """One row of a transaction; `data` of None deletes it."""

    key: str
    data: bytes | None
    mode: WriteMode = WriteMode.ANY
    etag: str = ""

    @property
    def size(self) -> int:
        """About how many bytes it takes on the way to the store."""
        return len(self.key) + len(self.etag) + len(self.data or b"")


class StateStore(Protocol):
    """Where actors keep their rows. A failure is a StateStoreError; nothing is retried."""

    async def read(self, key: str) -> StoredValue:
        """Read one row."""
        ...

    async def read_many(self, keys: Sequence[str]) -> list[StoredValue]:
        """Read rows in the order of `keys`; a missing row has no data."""
        ...

    async def write(self, writes: Sequence[StateWrite], *, alone: bool = False) -> str:
        """Write all or nothing; the new ETag of the first row, or "" where the store does not tell it.

        Writes of the same moment may share one transaction unless this one has to be `alone`; each keeps its own
        conditions and its own outcome.
        """
        ...

    async def read_later(self, key: str) -> StoredValue:
        """As `read`, for an ETag that nobody waits for yet: others' reads may share the request."""
        ...

    def begin_reads(self) -> None:
        """Somebody waits now for what `read_later` reads."""
        ...
