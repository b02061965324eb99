"""Calls that wait for an actor's turn share it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from services.kit.dapr.batching import CallBatcher
from tests.requirements import requirement

MOST = 3


class Actor:
    """Takes turns, as an actor does, and remembers what it worked on together."""

    def __init__(self) -> None:
        self.busy = asyncio.Lock()
        self.turns: list[list[int]] = []
        self.broken: Exception | None = None
        self.races = 0
        self.together = CallBatcher(self.exclusively, self.work, MOST)

    async def exclusively(self, work: Callable[[], Awaitable[Any]]) -> Any:
        async with self.busy:
            while self.races:
                with pytest.raises(LookupError):
                    await work()
                self.races -= 1
            return await work()

    async def work(self, values: Sequence[int]) -> list[int]:
        self.turns.append(list(values))
        if self.races or self.broken:
            raise self.broken or LookupError
        return [value * 10 for value in values]


async def waiting(actor: Actor, count: int) -> list[asyncio.Task[int]]:
    """Calls that wait for an actor that is busy."""
    calls = [asyncio.ensure_future(actor.together.call(value)) for value in range(count)]
    await asyncio.sleep(0)
    return calls


@requirement("kit:together")
async def test_what_waits_shares_a_turn_up_to_a_bound_and_in_order() -> None:
    actor = Actor()
    async with actor.busy:
        calls = await waiting(actor, 5)
    assert await asyncio.gather(*calls) == [0, 10, 20, 30, 40]
    assert actor.turns == [[0, 1, 2], [3, 4]]


@requirement("kit:together")
async def test_a_failure_is_everybody_s_who_was_taken_and_of_nobody_else() -> None:
    actor = Actor()
    actor.broken = ValueError("no")
    async with actor.busy:
        calls = await waiting(actor, 2)
    assert await asyncio.gather(*calls, return_exceptions=True) == [actor.broken] * 2
    actor.broken = None
    assert await actor.together.call(7) == 70


@requirement("kit:together")
async def test_after_a_lost_race_the_same_calls_are_worked_on_again() -> None:
    actor = Actor()
    actor.races = 1
    assert await actor.together.call(1) == 10
    assert actor.turns == [[1], [1]]


@requirement("kit:together")
async def test_a_caller_that_leaves_keeps_nobody_waiting() -> None:
    actor = Actor()
    async with actor.busy:
        calls = await waiting(actor, 3)
        calls[0].cancel()
        await asyncio.sleep(0)
    assert await asyncio.gather(*calls[1:]) == [10, 20]
