"""Waiting for a condition; tests do not sleep."""

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
    """Poll until the condition is true and return its value; on timeout the failure names `what`."""
    deadline = time.monotonic() + timeout
    while True:
        found = condition()
        value = await found if isinstance(found, Awaitable) else found
        if value:
            return cast(ValueT, value)
        if time.monotonic() >= deadline:
            raise AssertionError(f"{what} did not come within {timeout:g} s; last seen: {value!r}")
        await asyncio.sleep(every)
