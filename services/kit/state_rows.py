"""Rows of the state store, as they are read and written."""

from dataclasses import dataclass
from enum import StrEnum


class SidecarError(Exception):
    """The sidecar, or what lies behind it, failed; the outcome of a write is unknown.

    `answered` where the sidecar itself said no: a transaction that broke a condition is among these.
    """

    def __init__(self, message: str, *, answered: bool = False) -> None:
        super().__init__(message)
        self.answered = answered


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
        """About how many bytes it takes on the way to the sidecar."""
        return len(self.key) + len(self.etag) + len(self.data or b"")
