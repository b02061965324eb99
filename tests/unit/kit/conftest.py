"""Fixtures of kit's unit tests."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from tests.support.access import AccessFixture, FakeAccessSource

OpenAccess = Callable[[FakeAccessSource], Awaitable[AccessFixture]]


@pytest.fixture
async def open_access() -> AsyncIterator[OpenAccess]:
    """Opens access caches that follow their feeds until the end of the test."""
    async with AsyncExitStack() as stack:

        async def make(source: FakeAccessSource) -> AccessFixture:
            access = AccessFixture(source)
            stack.push_async_callback(access.close)
            return await access.follow()

        yield make
