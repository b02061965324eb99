"""Work that is run once for all who want it."""

import asyncio

import pytest

from services.kit.single_flight import SingleFlight


class Work:
    """Counts its runs; each waits for the gate and says how many there were."""

    def __init__(self) -> None:
        self.runs = 0
        self.gate = asyncio.Event()

    async def __call__(self) -> int:
        self.runs += 1
        number = self.runs
        await self.gate.wait()
        if number == 13:
            raise ValueError("unlucky")
        return number


async def begun(
    flights: SingleFlight[str, int], work: Work, callers: int
) -> list[asyncio.Task[int]]:
    """So many callers who all wait."""
    tasks = [asyncio.create_task(flights.run("key", work)) for _ in range(callers)]
    await asyncio.gather(*(asyncio.wait([task], timeout=0) for task in tasks))
    return tasks


async def test_who_comes_meanwhile_shares_the_outcome_and_who_comes_after_begins_anew() -> None:
    flights, work = SingleFlight[str, int](), Work()
    waiting = await begun(flights, work, 5)
    work.gate.set()
    assert await asyncio.gather(*waiting) == [1] * 5
    assert await flights.run("key", work) == 2


async def test_who_comes_in_the_very_moment_of_landing_begins_anew() -> None:
    flights, late = SingleFlight[str, int](), list[asyncio.Task[int]]()

    async def second() -> int:
        return 2

    async def first() -> int:  # what it schedules comes before anybody hears that it has ended
        asyncio.get_running_loop().call_soon(lambda: late.append(flights.begin("key", second)))
        return 1

    assert await flights.run("key", first) == 1
    assert await late[0] == 2


async def test_who_leaves_does_not_stop_the_others() -> None:
    flights, work = SingleFlight[str, int](), Work()
    first, second = await begun(flights, work, 2)
    first.cancel()
    work.gate.set()
    assert await second == 1
    assert first.cancelled()


async def test_a_failure_is_everybodys_and_is_not_kept() -> None:
    flights, work = SingleFlight[str, int](), Work()
    work.runs = 12
    waiting = await begun(flights, work, 2)
    work.gate.set()
    for task in waiting:
        with pytest.raises(ValueError, match="unlucky"):
            await task
    assert await flights.run("key", work) == 14


async def test_after_a_forget_the_next_begins_anew_while_the_first_still_get_theirs() -> None:
    flights, work = SingleFlight[str, int](), Work()
    old = await begun(flights, work, 2)
    flights.forget(lambda key: key == "key")
    new = await begun(flights, work, 2)
    work.gate.set()
    assert await asyncio.gather(*old, *new) == [1, 1, 2, 2]
    assert await flights.run("key", work) == 3
