"""Runs many calls a few at a time."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeVar

AT_ONCE: Final = 8
"""Calls that keep two cores busy."""
ItemT = TypeVar("ItemT")


async def for_each(
    items: Iterable[ItemT], work: Callable[[ItemT], Awaitable[object]], at_once: int = AT_ONCE
) -> int:
    """Await `work` for every item, at most `at_once` at a time; the number of items. The first failure ends it."""
    waiting, done = iter(items), 0

    async def worker() -> None:
        nonlocal done
        for item in waiting:
            await work(item)
            done += 1

    workers = [asyncio.create_task(worker()) for _ in range(at_once)]
    try:
        await asyncio.gather(*workers)
    finally:
        for each in workers:
            each.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return done
