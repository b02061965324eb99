"""Rate limits on a real Valkey: shared by processes, with reservations, and with the local fallback."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from types import SimpleNamespace

import pytest
from limits.aio.storage import memory

from services.cli.stack import Stack
from services.kit.access import limits
from services.kit.access.limits import MAX_RESERVED, RateLimiter, SlidingWindows
from services.kit.errors import ErrorCode, RpcError
from tests.requirements import requirement
from tests.support.wait import wait_until

LIMIT = 20


@pytest.fixture
async def windows(
    servers: Stack, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[list[SlidingWindows]]:
    """The counters of two processes, with a long timeout for slow machines."""
    monkeypatch.setattr(limits, "TIMEOUT_SECONDS", 10)
    async with opened_windows(servers) as opened:
        yield opened


@asynccontextmanager
async def opened_windows(servers: Stack) -> AsyncIterator[list[SlidingWindows]]:
    opened = [SlidingWindows(servers.url("valkey")) for _ in range(2)]
    yield opened
    for each in opened:
        await each.close()


@pytest.fixture
def processes(windows: list[SlidingWindows]) -> list[RateLimiter]:
    """The limiters of two processes, for a limit without reservations."""
    return limiters(windows, LIMIT)


def limiters(
    windows: list[SlidingWindows], limit: int, clock: Callable[[], float] = time.monotonic
) -> list[RateLimiter]:
    name, minute = uuid.uuid4().hex, timedelta(seconds=60)
    return [
        RateLimiter(each, name=name, limit=limit, window=minute, clock=clock) for each in windows
    ]


async def admitted(limiters: list[RateLimiter], subject: str, calls: int) -> int:
    """How many of `calls` concurrent calls were admitted."""

    async def one(number: int) -> bool:
        try:
            await limiters[number % len(limiters)].require(subject)
        except RpcError as error:
            return error.code is not ErrorCode.RATE_LIMITED
        return True

    return sum(await asyncio.gather(*(one(number) for number in range(calls))))


@requirement("access:rate-limits")
async def test_a_burst_over_two_processes_is_admitted_up_to_the_limit(
    processes: list[RateLimiter],
) -> None:
    assert await admitted(processes, "ada", 5 * LIMIT) == LIMIT
    assert await admitted(processes, "bob", LIMIT) == LIMIT
    with pytest.raises(RpcError) as refused:
        await processes[0].require("ada")
    assert refused.value.retry_after is not None
    assert timedelta(0) < refused.value.retry_after <= timedelta(seconds=120)


@requirement("access:rate-limits")
async def test_reserved_calls_are_admitted_up_to_the_limit(
    windows: list[SlidingWindows],
) -> None:
    limit = 100 * MAX_RESERVED
    one, other = limiters(windows, limit)
    assert await admitted([one], "ada", 1) == 1
    assert await admitted([other], "ada", limit) == limit - MAX_RESERVED
    assert await admitted([one], "ada", limit) == MAX_RESERVED - 1
    assert await admitted([one, other], "bob", 2 * limit) == limit


@requirement("access:rate-limits")
async def test_reserved_calls_expire_with_their_window(windows: list[SlidingWindows]) -> None:
    limit, now = 100 * MAX_RESERVED, 0.0
    one, other = limiters(windows, limit, lambda: now)
    assert await admitted([one], "ada", 1) == 1
    assert await admitted([other], "ada", limit) == limit - MAX_RESERVED
    now = 60.0  # in Valkey the window continues
    assert await admitted([one], "ada", 1) == 0


@requirement("access:rate-limits")
async def test_while_valkey_is_unavailable_each_process_counts_locally(
    servers: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FALLBACK_SECONDS", 0.2)
    noon = SimpleNamespace(time=lambda: 43_200.0)
    monkeypatch.setattr(memory, "time", noon)  # a burst must not cross a minute
    async with opened_windows(servers) as windows:
        one, other = limiters(windows, LIMIT)
        servers.pause("valkey")
        try:
            assert await admitted([one], "ada", 3 * LIMIT) == LIMIT
            assert await admitted([other], "ada", 3 * LIMIT) == LIMIT
        finally:
            servers.resume("valkey")

        async def shared_again() -> bool:
            subject = uuid.uuid4().hex
            return await admitted([one, other], subject, 4 * LIMIT) == LIMIT

        await wait_until(shared_again, 10, "Valkey to count again")
