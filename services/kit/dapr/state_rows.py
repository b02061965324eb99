"""The port to the actors' state store: rows, and transactions with ETag conditions."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from services.kit.dapr.pubsub.outbox import OutboxEvent


class StateStoreError(Exception):
    """The state store failed or is unreachable; the outcome of a write is unknown unless `answered`.

    `answered`: the store returned the error, for example because a condition of the transaction failed.
    """

    def __init__(self, message: str, *, answered: bool = False) -> None:
        super().__init__(message)
        self.answered = answered


@dataclass(frozen=True, slots=True)
class StoredValue:
    """A state row with its ETag; `data` is empty for a missing row."""

    key: str
    data: bytes
    etag: str


class WriteMode(StrEnum):
    """Condition of a write: none, that the row is new, or that it has the given ETag."""

    ANY = "ANY"
    NEW = "NEW"
    MATCH = "MATCH"


@dataclass(frozen=True, slots=True)
class StateWrite:
    """One row of a transaction; `data` None deletes it."""

    key: str
    data: bytes | None
    mode: WriteMode = WriteMode.ANY
    etag: str = ""

    @property
    def size(self) -> int:
        """Approximate bytes on the wire."""
        return len(self.key) + len(self.etag) + len(self.data or b"")


class StateStore(Protocol):
    """Port to the rows of actors. Failures are `StateStoreError`; nothing is retried."""

    async def read(self, key: str) -> StoredValue: ...

    async def read_many(self, keys: Sequence[str]) -> list[StoredValue]:
        """Read rows in the order of `keys`; a missing row has no data."""
        ...

    async def write(
        self,
        writes: Sequence[StateWrite],
        *,
        events: Sequence["OutboxEvent"] = (),
        exclusive: bool = False,
    ) -> str:
        """Write all or nothing; returns the first row's new ETag, or "" if the store does not return it.

        `events` are published if the rows are written. Unless `exclusive`, concurrent writes may share a transaction;
        each keeps its own conditions and outcome.
        """
        ...

    async def read_deferred(self, key: str) -> StoredValue:
        """As `read`, for a result that no caller waits for yet: reads may be batched."""
        ...

    def flush_reads(self) -> None:
        """Begin deferred reads now: a caller waits for one."""
        ...
