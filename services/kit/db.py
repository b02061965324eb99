"""Postgres: pooled connections, and migrations that run once however many replicas start."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import asyncpg
import structlog
from sqlalchemy import Connection, text
from sqlalchemy.engine import URL, CursorResult, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.sql import Executable

from services.kit.sidecar import unavailable

STATEMENT_TIMEOUT_SECONDS: Final = 15.0
POOL_SIZE: Final = 12
"""Connections per app and kind; a statement takes about a millisecond, so a few serve many callers."""

GONE: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.exceptions.OperatorInterventionError,
    DBAPIError,
    OSError,
)
"""How a server that is away, starts or stops shows itself; a statement that took too long is among them."""

log = structlog.get_logger()


class Database:
    """One Postgres database. Each call is one statement and its own transaction, durable when it returns.

    `execute` takes SQLAlchemy's statements. `fetch` takes SQL as Postgres has it, without SQLAlchemy's share of
    about 0.4 ms: for the event log, where every token passes. A caller that is cancelled leaves its statement
    running: it is whole or not at all, and the connection stays usable.
    """

    def __init__(self, url: str) -> None:
        self._url = async_url(url)
        self._pool: asyncpg.Pool | None = None
        self._opening = asyncio.Lock()
        self.engine: AsyncEngine = create_async_engine(
            self._url,
            pool_size=POOL_SIZE,
            max_overflow=0,
            pool_timeout=STATEMENT_TIMEOUT_SECONDS,
            pool_recycle=1800,
            pool_use_lifo=True,
            isolation_level="AUTOCOMMIT",
            connect_args={
                "timeout": 10,
                "command_timeout": STATEMENT_TIMEOUT_SECONDS,
                "server_settings": {"application_name": "yocaso"},
            },
        )

    async def execute(
        self, statement: Executable, parameters: Mapping[str, Any] | None = None
    ) -> CursorResult[Any]:
        """Run one of SQLAlchemy's statements.

        Raises:
            RpcError: UNAVAILABLE while the server is away; the outcome of a write is unknown.
        """
        with _reaching():
            return await _uncancelled(self._execute(statement, parameters))

    async def fetch(self, statement: str, *arguments: Any) -> list[Any]:
        """Run one statement in Postgres's own SQL; its rows. UNAVAILABLE as for `execute`."""
        with _reaching():
            pool = self._pool or await self._open()
            return await _uncancelled(pool.fetch(statement, *arguments))

    async def fetch_one(self, statement: str, *arguments: Any) -> Any:
        """Run one statement in Postgres's own SQL; its row, or None. UNAVAILABLE as for `execute`."""
        with _reaching():
            pool = self._pool or await self._open()
            return await _uncancelled(pool.fetchrow(statement, *arguments))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Several of SQLAlchemy's statements as one transaction. UNAVAILABLE as for `execute`."""
        engine = self.engine.execution_options(isolation_level="READ COMMITTED")
        with _reaching():
            async with engine.begin() as connection:
                yield connection

    async def migrate(self, schema: str, versions: Path) -> None:
        """Bring a schema to its newest revision; replicas that start together wait for one another."""
        async with self.transaction() as connection:
            await connection.execute(
                text("SELECT pg_advisory_xact_lock(hashtext(:name))"), {"name": f"migrate:{schema}"}
            )
            await connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{schema}"'))
            await connection.run_sync(_upgrade, schema, versions)

    async def close(self) -> None:
        """Close every connection."""
        if self._pool is not None:
            await self._pool.close()
        await self.engine.dispose()

    async def _execute(
        self, statement: Executable, parameters: Mapping[str, Any] | None
    ) -> CursorResult[Any]:
        async with self.engine.connect() as connection:
            return await connection.execute(statement, parameters)

    async def _open(self) -> asyncpg.Pool:
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    self._url.set(drivername="postgresql").render_as_string(hide_password=False),
                    min_size=1,
                    max_size=POOL_SIZE,
                    timeout=10,
                    command_timeout=STATEMENT_TIMEOUT_SECONDS,
                    max_inactive_connection_lifetime=1800,
                    server_settings={"application_name": "yocaso"},
                )
        assert self._pool is not None
        return self._pool


@contextmanager
def _reaching() -> Iterator[None]:
    """A server that restarts is a passing failure, not a bug."""
    try:
        yield
    except GONE as error:
        if isinstance(error, DBAPIError) and not error.connection_invalidated:
            raise
        log.warning("database.unreachable", error=type(error).__name__)
        raise unavailable(error) from error


async def _uncancelled(statement: Any) -> Any:
    task = asyncio.ensure_future(statement)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(_note_outcome)
        raise


def _note_outcome(task: asyncio.Future[Any]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.warning("database.abandoned_statement_failed", error=type(task.exception()).__name__)


def async_url(url: str) -> URL:
    """A plain `postgresql://` DSN as SQLAlchemy wants it for asyncpg."""
    return make_url(url).set(drivername="postgresql+asyncpg")


def _upgrade(connection: Connection, schema: str, versions: Path) -> None:
    # Alembic is heavy and needed once at start.
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(versions))
    config.set_main_option("version_locations", str(versions))
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)

    def upgrade(revision: Any, _: Any) -> Any:
        # As alembic.command.upgrade does, without a file for the environment.
        return script._upgrade_revs("head", revision)  # pyright: ignore[reportPrivateUsage]

    with EnvironmentContext(config, script, fn=upgrade) as environment:
        environment.configure(connection=connection, version_table_schema=schema)
        environment.run_migrations()
