"""A cache of access checks over tuples and a feed that a test writes by hand, at a time that it moves."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import cast

from services.kit.access.cache import (
    EVERYTHING,
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


class Tuples:
    """An `AccessSource` over a set of what is allowed, with a feed that is written by hand."""

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
        new = [EVERYTHING] if after is None else self.fed[after:]
        return AccessChanges(len(self.fed), new)


class LocalWakeUps:
    """`WakeUps` within one process."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    @asynccontextmanager
    async def listen(self, name: str) -> AsyncIterator[asyncio.Event]:
        yield self.event


class World:
    """A cache that follows its feed, at a time that is moved by hand."""

    def __init__(self, tuples: Tuples) -> None:
        self.now = 0.0
        self.tuples = tuples
        self.cache = AccessCache(tuples, lambda: self.now)
        self.wake_ups = LocalWakeUps()
        self.following: asyncio.Task[None] | None = None

    async def follow(self) -> "World":
        follow = self.cache.follow_feed(cast(WakeUps, self.wake_ups))
        self.following = asyncio.create_task(follow)
        await wait_until(lambda: self.tuples.reads == 1)
        return self

    async def change(self, *changes: AccessChange, removed: Iterable[AccessCheck] = ()) -> None:
        """Feed a change, and have it read."""
        self.tuples.allowed -= set(removed)
        self.tuples.fed += changes
        await self.read()

    async def read(self) -> None:
        before = self.tuples.reads
        self.wake_ups.event.set()
        await wait_until(lambda: self.tuples.reads > before)

    async def close(self) -> None:
        """Follow no more."""
        if self.following is not None:
            self.following.cancel()
            await asyncio.gather(self.following, return_exceptions=True)
