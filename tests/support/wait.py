"""Waiting on conditions: the one way in which a test lets time pass."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

ValueT = TypeVar("ValueT")


async def wait_until(
    condition: Callable[[], ValueT | Awaitable[ValueT]],
    timeout: float = 10.0,
    what: str = "the condition",
    *,
    every: float = 0.02,
) -> ValueT:
    """The first true value of the condition; a failure that names what never came."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"{what} did not come within {timeout:g} s; last seen: {value!r}")
        await asyncio.sleep(every)
