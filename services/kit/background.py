"""Background tasks of an app: periodic work, and tasks that outlive the call that began them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import structlog

T = TypeVar("T")

log = structlog.get_logger()


def every(seconds: float, work: Callable[[], Awaitable[Any]], name: str) -> asyncio.Task[None]:
    """Run `work` periodically in the background; a failed run is logged, and the next one still happens."""

    async def loop() -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await work()
            except Exception:
                log.warning("background.failed", work=name, exc_info=True)

    return asyncio.create_task(loop(), name=name)


@asynccontextmanager
async def background(task: asyncio.Task[None]) -> AsyncIterator[None]:
    """Cancel a background task at the end of the block, and wait until it has ended."""
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class TaskSet:
    """Holds running tasks: the event loop alone keeps only weak references, so they could be garbage-collected."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin a task, and hold it until it ends."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self, grace_seconds: float | None = None) -> None:
        """Wait for the running tasks, at most `grace_seconds`; cancel the rest."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_seconds)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
