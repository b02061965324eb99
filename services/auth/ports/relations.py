"""Relationship tuples: their store, the outbox of their changes, the feed of removed access, and share links."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final, Protocol

from services.auth.domain.sharing import StoredLink
from services.contracts.auth.authorization import ExpandNode, ReadChangesResponse, RelationTuple
from services.kit.access.cache import AccessChange, AccessChanges

if TYPE_CHECKING:
    from services.kit.storage.db import Transaction

MAX_CHANGES: Final = 100
"""Tuples in one write; OpenFGA refuses more."""


class Relations(Protocol):
    """The store of relationship tuples. UNAVAILABLE while it does not answer, INVALID_ARGUMENT for unknown types.

    `fresh` reads see every acknowledged write.
    """

    async def check(self, checks: Sequence[RelationTuple], *, fresh: bool) -> list[bool]:
        """Whether the tuples imply each of these, in order."""
        ...

    async def write(
        self, writes: Sequence[RelationTuple], deletes: Sequence[RelationTuple] = ()
    ) -> None:
        """Write and delete at most `MAX_CHANGES` tuples, all or none; repeatable."""
        ...

    async def read(self, target: str) -> list[RelationTuple]:
        """Every tuple of an object: `conversation:conv_…`."""
        ...

    async def read_subject(self, subject: str) -> list[RelationTuple]:
        """Every tuple of a subject: `user:ada`."""
        ...

    async def objects(self, subject: str, relation: str, kind: str, *, fresh: bool) -> list[str]:
        """The objects of a type to which a subject has a relation; at most 1,000."""
        ...

    async def users(self, relation: str, target: str, *, fresh: bool) -> list[str]:
        """The users with a relation to an object, `user:…`; at most 1,000."""
        ...

    async def expand(self, relation: str, target: str) -> ExpandNode:
        """The tree of tuples and rules that give a relation to an object."""
        ...

    async def changes(
        self, kind: str | None, limit: int, cursor: str | None
    ) -> ReadChangesResponse:
        """A page of the history of writes and deletes, oldest first."""
        ...


@dataclass(frozen=True, slots=True)
class PendingChange:
    """A committed change of tuples that is not delivered yet."""

    number: int
    writes: list[RelationTuple]
    deletes: list[RelationTuple]


class Outbox(Protocol):
    """Changes of tuples that were committed in Postgres, to be delivered in order."""

    async def add(
        self,
        transaction: "Transaction",
        writes: Sequence[RelationTuple],
        deletes: Sequence[RelationTuple],
    ) -> None: ...

    async def pending(self, transaction: "Transaction", limit: int) -> list[PendingChange]:
        """The oldest changes that are neither delivered nor refused."""
        ...

    async def remove(self, transaction: "Transaction", number: int) -> None:
        """Delete a delivered change."""
        ...

    async def refuse(self, transaction: "Transaction", number: int) -> None:
        """Mark a change that the store refuses: it is kept, and does not block later ones."""
        ...


class AccessFeed(Protocol):
    """Feed of removed access: a reader of a position has seen every change up to it."""

    def publishing(self, changes: Sequence[AccessChange]) -> AbstractAsyncContextManager[None]:
        """Wrap a removal: its changes are published when the block ends, and later if the process dies in it.

        UNAVAILABLE if Postgres does not answer.
        """
        ...

    async def since(self, position: int | None) -> AccessChanges:
        """The changes after a position; `ANY_ACCESS_CHANGE` without one, or if it is too old."""
        ...


class ShareLinks(Protocol):
    """Share links, without their tokens."""

    async def add(self, transaction: "Transaction", link: StoredLink, digest: bytes) -> None:
        """Insert a link with the keyed hash of its token."""
        ...

    async def end(
        self, transaction: "Transaction", target: str, link_id: str, at: datetime
    ) -> list[StoredLink]:
        """End a link of an object; the link, or nothing if it has ended before or does not exist."""
        ...

    async def end_expired(self, transaction: "Transaction", at: datetime) -> list[StoredLink]:
        """End every expired link; these links."""
        ...

    async def find(self, digest: bytes) -> StoredLink | None:
        """The link whose token has this keyed hash."""
        ...

    async def of_object(self, target: str) -> list[StoredLink]:
        """The links of an object, also ended ones, oldest first."""
        ...

    async def forget(self, target: str) -> None:
        """Delete the links of an object."""
        ...
