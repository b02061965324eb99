"""Where shares and links are kept, together with their audit events."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.auth.domain.sharing import StoredLink
from services.contracts.auth.authorization import RelationTuple


@dataclass(frozen=True, slots=True)
class SharingEvent:
    """What goes into the audit log: who changed what, in whose log."""

    actor: str
    owner: str
    object: str
    key_id: str | None
    details: dict[str, str]


class Sharing(Protocol):
    """Every change is one transaction with its event and its facts, which are true when the call returns.

    UNAVAILABLE where they are not yet: the change is kept, and delivered later.
    """

    async def change(
        self, event: SharingEvent, writes: Sequence[RelationTuple], deletes: Sequence[RelationTuple]
    ) -> None:
        """Share, or stop sharing."""
        ...

    async def create(self, event: SharingEvent, link: StoredLink, digest: bytes) -> None:
        """Keep a new link and let it give its role."""
        ...

    async def end(self, event: SharingEvent, link_id: str, at: datetime) -> bool:
        """End a link of the event's object and what it gave; False where the object has no such link."""
        ...

    async def end_expired(self, now: datetime) -> None:
        """End every link whose time is over, and what it gave."""
        ...

    async def find(self, digest: bytes) -> StoredLink | None:
        """The link of a token."""
        ...

    async def links(self, target: str) -> list[StoredLink]:
        """The links of an object, also those that have ended."""
        ...

    async def forget(self, target: str) -> list[str]:
        """Remove the links of an object; their ids."""
        ...
