"""Servers that the tests of one app or of kit share."""

import asyncio
import os
import secrets
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from services.cli.stack import Stack
from tests.support.diagnosis import pytest_runtest_makereport as pytest_runtest_makereport
from tests.support.port_offsets import SERVERS, offset_of

ROOT = Path(__file__).parents[2]
OFFSET = int(os.environ.get("YOCASO_TEST_OFFSET", offset_of(f"{SERVERS} apps")))
"""Of the shared servers; stages that run side by side have their own."""


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Postgres, Valkey, placement and scheduler, without apps."""
    stack = Stack(
        tmp_path_factory.mktemp("servers"), port_offset=OFFSET, dapr_yaml=ROOT / "dapr.yaml"
    )
    stack.start(apps=False)
    yield stack
    stack.stop()


@pytest.fixture(scope="session")
def database_url(servers: Stack) -> str:
    """The database of `servers`, whose schemas are migrated."""
    return servers.database_url()


@asynccontextmanager
async def new_database(database_url: str, template: str = "template1") -> AsyncIterator[str]:
    """The URL of a new database of the same server, dropped at the end."""
    name = f"test_{secrets.token_hex(4)}"
    await _execute(database_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield make_url(database_url).set(database=name).render_as_string(hide_password=False)
    await _execute(database_url, f"DROP DATABASE {name} WITH (FORCE)")


async def _execute(database_url: str, statement: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute(statement)
    await connection.close()


@pytest.fixture
async def empty_database_url(database_url: str) -> AsyncIterator[str]:
    """A database without schemas."""
    async with new_database(database_url) as url:
        yield url


@pytest.fixture(scope="session")
async def migrated_template(database_url: str) -> AsyncIterator[str]:
    """The name of a database with every schema and no rows, which nothing connects to."""
    async with new_database(database_url) as url:
        command = (sys.executable, "-m", "services.cli.migrate")
        env = {**os.environ, "YOCASO_DATABASE_URL": url}
        migration = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=env)
        assert await migration.wait() == 0
        yield make_url(url).database or ""


@pytest.fixture
async def own_database_url(database_url: str, migrated_template: str) -> AsyncIterator[str]:
    """A database with every schema and no rows, of one test's own."""
    async with new_database(database_url, migrated_template) as url:
        yield url
