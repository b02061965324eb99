"""Work beside the calls: again and again, for as long as the app runs."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import structlog

log = structlog.get_logger()


def every(seconds: float, work: Callable[[], Awaitable[Any]], name: str) -> asyncio.Task[None]:
    """Do some work again and again in the background; a failure is logged, and the next time comes all the same."""

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
    """Keep a background task for as long as the app runs."""
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
