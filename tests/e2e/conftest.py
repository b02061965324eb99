"""One platform for all tests of this folder."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.platform import Client, Platform


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Everything, started once."""
    running = Platform(tmp_path_factory.mktemp("platform"), offset=16_000)
    running.start()
    yield running
    running.stop()


@pytest.fixture
async def alice(platform: Platform) -> AsyncIterator[Client]:
    """A user."""
    async with platform.client("alice") as client:
        yield client


@pytest.fixture
async def bob(platform: Platform) -> AsyncIterator[Client]:
    """Another user."""
    async with platform.client("bob") as client:
        yield client
