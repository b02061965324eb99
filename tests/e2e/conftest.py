"""One platform for all e2e tests."""

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from services.auth.adapters.jose import JoseTokenSigner
from services.auth.adapters.postgres.signing import PostgresSigningKeys
from services.kit.eventlog import EventLog, HostLease
from services.kit.storage.db import Database
from services.kit.storage.wake_ups import WakeUps
from tests.support.dapr_command import find_dapr
from tests.support.platform import SHORT_RETENTION, Client, Platform

KEY_SECRET = "encrypts the signing keys of these tests"
TRUSTED_APP = "shop"
"""A back end of somebody else that may call for any user."""
DAPR = find_dapr()
collect_ignore = [] if DAPR else ["test_dapr_run.py"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was not run; `tests/contract/test_run_template.py` runs everywhere."""
    if DAPR is None:
        terminalreporter.write_line(
            "`dapr` was not found by DAPR_CLI or on PATH: tests/e2e/test_dapr_run.py did not run"
        )


@pytest.fixture(scope="session")
def trace_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file to which every app writes its spans."""
    return tmp_path_factory.mktemp("traces") / "spans.jsonl"


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory, trace_file: Path) -> Iterator[Platform]:
    env = {
        "*": {"YOCASO_TRACE_FILE": str(trace_file)},
        "auth": {"AUTH_KEY_SECRET": KEY_SECRET},
        **SHORT_RETENTION,
    }
    running = Platform(
        tmp_path_factory.mktemp("platform"), offset=16_200, env=env, trusted_apps=(TRUSTED_APP,)
    )
    running.start()
    yield running
    running.stop()


@pytest.fixture
async def alice(platform: Platform) -> AsyncIterator[Client]:
    async with platform.client(f"alice-{uuid.uuid4().hex[:8]}") as client:
        yield client


@pytest.fixture
async def bob(platform: Platform) -> AsyncIterator[Client]:
    async with platform.client(f"bob-{uuid.uuid4().hex[:8]}") as client:
        yield client


@pytest.fixture
async def conversation(alice: Client) -> str:
    return await alice.conversation()


@pytest.fixture
async def database(platform: Platform) -> AsyncIterator[asyncpg.Connection]:
    """A connection to the platform's Postgres database."""
    connection = await asyncpg.connect(platform.stack.database_url())
    yield connection
    await connection.close()


@pytest.fixture
async def stores(platform: Platform) -> AsyncIterator[list[asyncpg.Connection]]:
    """Connections to both databases: the platform's and OpenFGA's."""
    url = platform.stack.database_url()
    opened = [await asyncpg.connect(url), await asyncpg.connect(url, database="openfga")]
    yield opened
    for connection in opened:
        await connection.close()


@pytest.fixture
async def log(platform: Platform) -> AsyncIterator[EventLog]:
    """The event log as another host uses it."""
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
    """Signs claims with the platform's signing key."""
    database = Database(platform.stack.database_url())
    key, *_ = await PostgresSigningKeys(database).all()
    signer = JoseTokenSigner(KEY_SECRET)
    yield lambda claims: signer.sign(key, claims)
    await database.close()
