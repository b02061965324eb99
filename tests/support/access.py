"""An access cache over a fake access source, with a clock that a test sets."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Self, cast

from services.kit.access.cache import (
    ANY_ACCESS_CHANGE,
    AccessCache,
    AccessChange,
    AccessChanges,
    AccessCheck,
)
from services.kit.errors import ErrorCode, RpcError
from services.kit.storage.wake_ups import WakeUps
from tests.support.wait import wait_until

VIEW = AccessCheck("ada", "viewer", "conversation:c1")
EDIT = AccessCheck("ada", "editor", "conversation:c1")
OTHER = AccessCheck("ada", "viewer", "conversation:c2")
BOB = AccessCheck("bob", "viewer", "conversation:c1")
AWAY = RpcError(ErrorCode.UNAVAILABLE, "away")


class FakeAccessSource:
    """An `AccessSource` over a set of allowed checks; `gate` and `feed_gate` hold its replies back."""

    def __init__(self, *allowed: AccessCheck) -> None:
        self.allowed = set(allowed)
        self.asked: list[AccessCheck] = []
        self.fed: list[AccessChange] = []
        self.reads = 0
        self.away = False
        self.feed_away = False
        self.asking = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.feed_gate = asyncio.Event()
        self.feed_gate.set()

    async def check(self, check: AccessCheck) -> bool:
        allowed = check in self.allowed
        self.asked.append(check)
        self.asking.set()
        await self.gate.wait()
        if self.away:
            raise AWAY
        return allowed

    async def changes(self, after: int | None) -> AccessChanges:
        await self.feed_gate.wait()
        self.reads += 1
        if self.feed_away:
            raise AWAY
        new = [ANY_ACCESS_CHANGE] if after is None else self.fed[after:]
        return AccessChanges(len(self.fed), new)


class LocalWakeUps:
    """`WakeUps` within one process."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    @asynccontextmanager
    async def listen(self, name: str) -> AsyncIterator[asyncio.Event]:
        yield self.event


class AccessFixture:
    """A cache that follows its feed."""

    def __init__(self, source: FakeAccessSource) -> None:
        self.now = 0.0
        self.source = source
        self.cache = AccessCache(source, lambda: self.now)
        self.wake_ups = LocalWakeUps()
        self.following: asyncio.Task[None] | None = None

    async def follow(self) -> Self:
        follow = self.cache.follow_feed(cast(WakeUps, self.wake_ups))
        self.following = asyncio.create_task(follow)
        await wait_until(lambda: self.source.reads == 1)
        return self

    async def change(self, *changes: AccessChange, removed: Iterable[AccessCheck] = ()) -> None:
        """Publish changes in the feed and wait until the cache has read them."""
        self.source.allowed -= set(removed)
        self.source.fed += changes
        await self.read()

    async def read(self) -> None:
        before = self.source.reads
        self.wake_ups.event.set()
        await wait_until(lambda: self.source.reads > before)

    async def close(self) -> None:
        """Stop following the feed."""
        if self.following is not None:
            self.following.cancel()
            await asyncio.gather(self.following, return_exceptions=True)
