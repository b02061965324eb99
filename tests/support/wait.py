"""Waiting on conditions: the one way in which a test lets time pass."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

ValueT = TypeVar("ValueT")


async def wait_until(
    condition: Callable[[], ValueT | Awaitable[ValueT | None] | None],
    timeout: float = 10.0,
    what: str = "the condition",
    *,
    every: float = 0.02,
) -> ValueT:
    """The first true value of the condition; a failure that names what never came."""
    deadline = time.monotonic() + timeout
    while True:
        found = condition()
        value = await found if isinstance(found, Awaitable) else found
        if value:
            return cast(ValueT, value)
        if time.monotonic() >= deadline:
            raise AssertionError(f"{what} did not come within {timeout:g} s; last seen: {value!r}")
        await asyncio.sleep(every)
