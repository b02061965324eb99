"""Facts about who has which relation to what, and what follows from them."""

from collections.abc import Sequence
from typing import Final, Protocol

from services.contracts.auth.authorization import ExpandNode, ReadChangesResponse, RelationTuple

MAX_CHANGES: Final = 100
"""Facts that change together, at most."""


async def make_untrue(relations: "Relations", facts: Sequence[RelationTuple]) -> None:
    """Delete any number of facts; repeatable."""
    for first in range(0, len(facts), MAX_CHANGES):
        await relations.write([], facts[first : first + MAX_CHANGES])


class Relations(Protocol):
    """Keeps facts. Every method raises UNAVAILABLE where it cannot tell, INVALID_ARGUMENT for what the model lacks.

    `fresh` sees every change that was acknowledged before.
    """

    async def check(self, questions: Sequence[RelationTuple], *, fresh: bool) -> list[bool]:
        """Whether each follows from the facts, in order."""
        ...

    async def write(
        self, writes: Sequence[RelationTuple], deletes: Sequence[RelationTuple] = ()
    ) -> None:
        """Make facts true and untrue, all or none; repeatable. At most `MAX_CHANGES` together."""
        ...

    async def read(self, target: str) -> list[RelationTuple]:
        """Every fact about an object: `conversation:conv_…`."""
        ...

    async def read_subject(self, subject: str) -> list[RelationTuple]:
        """Every fact that names a subject: `user:ada`."""
        ...

    async def objects(self, subject: str, relation: str, kind: str, *, fresh: bool) -> list[str]:
        """The objects of a type to which a subject has a relation; at most 1,000."""
        ...

    async def users(self, relation: str, target: str, *, fresh: bool) -> list[str]:
        """The users who have a relation to an object, `user:…`; at most 1,000."""
        ...

    async def expand(self, relation: str, target: str) -> ExpandNode:
        """What gives a relation to an object."""
        ...

    async def changes(
        self, kind: str | None, limit: int, cursor: str | None
    ) -> ReadChangesResponse:
        """A page of the history of facts, oldest first."""
        ...
