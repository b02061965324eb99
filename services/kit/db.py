"""Postgres: one engine per app, and migrations that run once however many replicas start."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import structlog
from sqlalchemy import Connection, text
from sqlalchemy.engine import URL, CursorResult, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.sql import Executable

STATEMENT_TIMEOUT_MS: Final = 15_000
POOL_SIZE: Final = 16

log = structlog.get_logger()


class Database:
    """Pooled connections; each `execute` is one statement and its own transaction."""

    def __init__(self, url: str) -> None:
        self.engine: AsyncEngine = create_async_engine(
            async_url(url),
            pool_size=POOL_SIZE,
            max_overflow=POOL_SIZE,
            pool_timeout=STATEMENT_TIMEOUT_MS / 1000,
            pool_recycle=1800,
            pool_use_lifo=True,
            isolation_level="AUTOCOMMIT",
            connect_args={
                "timeout": 10,
                "command_timeout": STATEMENT_TIMEOUT_MS / 1000,
                "server_settings": {"application_name": "yocaso"},
            },
        )

    async def execute(
        self, statement: Executable, parameters: Mapping[str, Any] | None = None
    ) -> CursorResult[Any]:
        """Run one statement; it is durable when this returns.

        A caller that is cancelled leaves the statement running: it is whole or not at all, and the connection
        stays usable.
        """
        task = asyncio.ensure_future(self._execute(statement, parameters))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_note_outcome)
            raise

    async def _execute(
        self, statement: Executable, parameters: Mapping[str, Any] | None
    ) -> CursorResult[Any]:
        async with self.engine.connect() as connection:
            return await connection.execute(statement, parameters)

    async def is_ready(self) -> bool:
        """Whether the database answers."""
        try:
            await self.execute(text("SELECT 1"))
        except Exception:
            return False
        return True

    async def migrate(self, schema: str, versions: Path) -> None:
        """Bring a schema to its newest revision; replicas that start together wait for one another."""
        engine = self.engine.execution_options(isolation_level="READ COMMITTED")
        async with engine.begin() as connection:
            await connection.execute(
                text("SELECT pg_advisory_xact_lock(hashtext(:name))"), {"name": f"migrate:{schema}"}
            )
            await connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{schema}"'))
            await connection.run_sync(_upgrade, schema, versions)

    async def close(self) -> None:
        """Close every connection."""
        await self.engine.dispose()


def _note_outcome(task: asyncio.Future[CursorResult[Any]]) -> None:
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
