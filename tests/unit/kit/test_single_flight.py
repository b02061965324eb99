"""Single flight."""

import asyncio

import pytest

from services.kit.single_flight import SingleFlight


class Work:
    """Counts its runs; each waits for the gate and returns the count."""

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
    single_flight: SingleFlight[str, int], work: Work, callers: int
) -> list[asyncio.Task[int]]:
    """Start this many waiting callers."""
    tasks = [asyncio.create_task(single_flight.run("key", work)) for _ in range(callers)]
    await asyncio.gather(*(asyncio.wait([task], timeout=0) for task in tasks))
    return tasks


async def test_concurrent_callers_share_the_result_and_later_ones_run_again() -> None:
    single_flight, work = SingleFlight[str, int](), Work()
    waiting = await begun(single_flight, work, 5)
    work.gate.set()
    assert await asyncio.gather(*waiting) == [1] * 5
    assert await single_flight.run("key", work) == 2


async def test_a_caller_right_after_completion_runs_again() -> None:
    single_flight, late = SingleFlight[str, int](), list[asyncio.Task[int]]()

    async def second() -> int:
        return 2

    async def first() -> int:  # its callback runs before the waiters resume
        asyncio.get_running_loop().call_soon(
            lambda: late.append(single_flight.begin("key", second))
        )
        return 1

    assert await single_flight.run("key", first) == 1
    assert await late[0] == 2


async def test_a_cancelled_caller_does_not_stop_the_others() -> None:
    single_flight, work = SingleFlight[str, int](), Work()
    first, second = await begun(single_flight, work, 2)
    first.cancel()
    work.gate.set()
    assert await second == 1
    assert first.cancelled()


async def test_an_error_is_raised_to_every_caller_and_not_cached() -> None:
    single_flight, work = SingleFlight[str, int](), Work()
    work.runs = 12
    waiting = await begun(single_flight, work, 2)
    work.gate.set()
    for task in waiting:
        with pytest.raises(ValueError, match="unlucky"):
            await task
    assert await single_flight.run("key", work) == 14


async def test_after_forget_the_next_caller_runs_again_and_earlier_ones_get_their_result() -> None:
    single_flight, work = SingleFlight[str, int](), Work()
    old = await begun(single_flight, work, 2)
    single_flight.forget(lambda key: key == "key")
    new = await begun(single_flight, work, 2)
    work.gate.set()
    assert await asyncio.gather(*old, *new) == [1, 1, 2, 2]
    assert await single_flight.run("key", work) == 3
