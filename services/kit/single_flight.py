"""Work that is run once for all who want it at the same time."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SingleFlight(Generic[K, V]):
    """One run of some work per key at a time; whoever comes meanwhile shares its outcome."""

    def __init__(self) -> None:
        self._running: dict[K, asyncio.Task[V]] = {}

    async def run(self, key: K, work: Callable[[], Awaitable[V]]) -> V:
        """Run, or join; a caller that leaves does not stop the others."""
        return await asyncio.shield(self.begin(key, work))

    def begin(self, key: K, work: Callable[[], Awaitable[V]]) -> asyncio.Task[V]:
        """Run, or join, without waiting."""
        task = self._running.get(key)
        if task is None or task.done():  # landed, but its callbacks have not run yet
            task = asyncio.create_task(_run(work))
            self._running[key] = task
            task.add_done_callback(lambda done: self._landed(key, done))
        return task

    def forget(self, which: Callable[[K], bool]) -> None:
        """Whoever comes next begins anew; those who wait already still get what they wait for."""
        for key in [key for key in self._running if which(key)]:
            del self._running[key]

    def is_latest(self, key: K) -> bool:
        """Asked from within a run: whether those who come next would still join it."""
        return self._running.get(key) is asyncio.current_task()

    def _landed(self, key: K, done: asyncio.Task[V]) -> None:
        if self._running.get(key) is done:
            del self._running[key]
        if not done.cancelled():
            done.exception()  # everybody who asked may have left


async def _run(work: Callable[[], Awaitable[V]]) -> V:
    return await work()
