"""The change feed: tells every process whose access was taken away."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from services.kit.access.cache import AccessChange, AccessChanges


class AccessFeed(Protocol):
    """Changes in an order that readers can rely on: whoever has read up to a position has seen all before it."""

    def taking_away(self, changes: Sequence[AccessChange]) -> AbstractAsyncContextManager[None]:
        """Around a removal: it is in the feed when the block is left, and soon also where the process dies within.

        UNAVAILABLE where Postgres is away; a removal that was made gets into the feed later.
        """
        ...

    async def since(self, position: int | None) -> AccessChanges:
        """What came after a position; a change of everything without one, or where it is too old."""
        ...
