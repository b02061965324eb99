"""What several tests of kit share."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from tests.support.access import Tuples, World

OpenWorld = Callable[[Tuples], Awaitable[World]]


@pytest.fixture
async def open_world() -> AsyncIterator[OpenWorld]:
    """Makes worlds that follow their feeds until the end of the test."""
    async with AsyncExitStack() as stack:

        async def make(tuples: Tuples) -> World:
            world = World(tuples)
            stack.push_async_callback(world.close)
            return await world.follow()

        yield make
