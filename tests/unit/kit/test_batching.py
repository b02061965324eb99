"""Calls that wait for an actor's lock share one batch."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from services.kit.dapr.batching import CallBatcher
from tests.requirements import requirement

MAX_BATCH = 3


class Actor:
    """Has a lock as an actor does, and records its batches."""

    def __init__(self) -> None:
        self.busy = asyncio.Lock()
        self.batches: list[list[int]] = []
        self.broken: Exception | None = None
        self.conflicts = 0
        self.batcher = CallBatcher(self.run_exclusively, self.work, MAX_BATCH)

    async def run_exclusively(self, work: Callable[[], Awaitable[Any]]) -> Any:
        async with self.busy:
            while self.conflicts:
                with pytest.raises(LookupError):
                    await work()
                self.conflicts -= 1
            return await work()

    async def work(self, values: Sequence[int]) -> list[int]:
        self.batches.append(list(values))
        if self.conflicts or self.broken:
            raise self.broken or LookupError
        return [value * 10 for value in values]


async def waiting(actor: Actor, count: int) -> list[asyncio.Task[int]]:
    """Calls that wait for a locked actor."""
    calls = [asyncio.ensure_future(actor.batcher.call(value)) for value in range(count)]
    await asyncio.sleep(0)
    return calls


@requirement("kit:batched-calls")
async def test_waiting_calls_share_a_batch_up_to_its_limit_and_in_order() -> None:
    actor = Actor()
    async with actor.busy:
        calls = await waiting(actor, 5)
    assert await asyncio.gather(*calls) == [0, 10, 20, 30, 40]
    assert actor.batches == [[0, 1, 2], [3, 4]]


@requirement("kit:batched-calls")
async def test_an_error_fails_its_batch_only() -> None:
    actor = Actor()
    actor.broken = ValueError("no")
    async with actor.busy:
        calls = await waiting(actor, 2)
    assert await asyncio.gather(*calls, return_exceptions=True) == [actor.broken] * 2
    actor.broken = None
    assert await actor.batcher.call(7) == 70


@requirement("kit:batched-calls")
async def test_after_a_state_conflict_the_same_batch_is_repeated() -> None:
    actor = Actor()
    actor.conflicts = 1
    assert await actor.batcher.call(1) == 10
    assert actor.batches == [[1], [1]]


@requirement("kit:batched-calls")
async def test_a_cancelled_caller_does_not_delay_the_others() -> None:
    actor = Actor()
    async with actor.busy:
        calls = await waiting(actor, 3)
        calls[0].cancel()
        await asyncio.sleep(0)
    assert await asyncio.gather(*calls[1:]) == [10, 20]
