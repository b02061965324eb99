"""One platform for all tests of this folder."""

import uuid
from collections.abc import AsyncIterator, Iterator

import asyncpg  # pyright: ignore[reportMissingTypeStubs]
import pytest

from services.kit.db import Database
from services.kit.eventlog import EventLog
from services.kit.signals import Signals
from tests.support.platform import Client, Platform

# A turn that nobody drives is found sooner than in production, so that tests need not wait for it.
LLM = {"LLM_SWEEP_SECONDS": "1", "LLM_IDLE_SECONDS": "6"}


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Everything, started once."""
    running = Platform(tmp_path_factory.mktemp("platform"), offset=16_200, env={"llm": LLM})
    running.start()
    yield running
    running.stop()


@pytest.fixture
async def alice(platform: Platform) -> AsyncIterator[Client]:
    """A user of this test alone."""
    async with platform.client(f"alice-{uuid.uuid4().hex[:8]}") as client:
        yield client


@pytest.fixture
async def bob(platform: Platform) -> AsyncIterator[Client]:
    """Another user."""
    async with platform.client(f"bob-{uuid.uuid4().hex[:8]}") as client:
        yield client


@pytest.fixture
async def conversation(alice: Client) -> str:
    """A new conversation of alice."""
    return await alice.conversation()


@pytest.fixture
async def database(platform: Platform) -> AsyncIterator[asyncpg.Connection]:
    """The stores behind the platform, to look at what was written."""
    connection = await asyncpg.connect(platform.stack.database_url())
    yield connection
    await connection.close()


@pytest.fixture
async def log(platform: Platform) -> AsyncIterator[EventLog]:
    """The event log itself, to stand in for a host that died or fell behind."""
    database = Database(platform.stack.database_url())
    signals = Signals(platform.stack.url("valkey"))
    await signals.start()
    yield EventLog(database, signals)
    await signals.close()
    await database.close()
