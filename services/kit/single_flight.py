"""Single flight: concurrent callers with one key share one execution."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SingleFlight(Generic[K, V]):
    """At most one execution per key at a time; callers that arrive during it get its result."""

    def __init__(self) -> None:
        self._running: dict[K, asyncio.Task[V]] = {}

    async def run(self, key: K, work: Callable[[], Awaitable[V]]) -> V:
        """Run `work` or join the running execution; cancelling one caller does not cancel it."""
        return await asyncio.shield(self.begin(key, work))

    def begin(self, key: K, work: Callable[[], Awaitable[V]]) -> asyncio.Task[V]:
        """As `run`, without waiting for the result."""
        task = self._running.get(key)
        if task is None or task.done():  # done, but its callbacks have not run yet
            task = asyncio.create_task(_run(work))
            self._running[key] = task
            task.add_done_callback(lambda done: self._remove(key, done))
        return task

    def forget(self, which: Callable[[K], bool]) -> None:
        """Later callers of these keys start a new execution; current waiters still get the old result."""
        for key in [key for key in self._running if which(key)]:
            del self._running[key]

    def is_latest(self, key: K) -> bool:
        """Called inside an execution: whether `forget` has not detached it from its key."""
        return self._running.get(key) is asyncio.current_task()

    def _remove(self, key: K, done: asyncio.Task[V]) -> None:
        if self._running.get(key) is done:
            del self._running[key]
        if not done.cancelled():
            done.exception()  # retrieved here: every caller may have been cancelled


async def _run(work: Callable[[], Awaitable[V]]) -> V:
    return await work()
