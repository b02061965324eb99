"""One platform for all tests of this folder."""

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from services.auth.adapters.jose import JoseKeyForge
from services.auth.adapters.postgres.signing import PostgresKeyStore
from services.kit.eventlog import EventLog, HostLease
from services.kit.storage.db import Database
from services.kit.storage.wake_ups import WakeUps
from tests.support.platform import Client, Platform

KEY_SECRET = "what seals the signing keys of these tests"


@pytest.fixture(scope="session")
def trace_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where every app writes its spans."""
    return tmp_path_factory.mktemp("traces") / "spans.jsonl"


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory, trace_file: Path) -> Iterator[Platform]:
    """Everything, started once."""
    env = {
        "*": {"YOCASO_TRACE_FILE": str(trace_file)},
        "auth": {"AUTH_KEY_SECRET": KEY_SECRET},
        # A turn that nobody drives is found sooner, so that tests need not wait for it.
        "llm": {"LLM_KEPT_SECONDS": "5"},
    }
    running = Platform(tmp_path_factory.mktemp("platform"), offset=16_200, env=env)
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
async def stores(platform: Platform) -> AsyncIterator[list[asyncpg.Connection]]:
    """Both databases: ours with Dapr's, and OpenFGA's."""
    url = platform.stack.database_url()
    opened = [await asyncpg.connect(url), await asyncpg.connect(url, database="openfga")]
    yield opened
    for connection in opened:
        await connection.close()


@pytest.fixture
async def log(platform: Platform) -> AsyncIterator[EventLog]:
    """The event log itself, to stand in for a host that died or fell behind."""
    url = platform.stack.database_url()
    database, lease = Database(url), HostLease(url)
    wake_ups = WakeUps(platform.stack.url("valkey"))
    wake_ups.start()
    await lease.start()
    yield EventLog(database, wake_ups, lease.host_id)
    await lease.close()
    await wake_ups.close()
    await database.close()


@pytest.fixture
async def sign(platform: Platform) -> AsyncIterator[Callable[[dict[str, Any]], str]]:
    """Signs any claims with the platform's own key."""
    database = Database(platform.stack.database_url())
    key, *_ = await PostgresKeyStore(database).all()
    forge = JoseKeyForge(KEY_SECRET)
    yield lambda said: forge.sign(key, said)
    await database.close()
