"""SQLAlchemy and Alembic: engines for apps with tables, and migrations: `python -m services.kit.storage.sql SCHEMA VERSIONS`."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, NullPool, event, text
from sqlalchemy.engine import URL, ExceptionContext, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from services.kit.storage.db import (
    ACQUIRE_SECONDS,
    BOUNDED,
    LASTING,
    MIGRATION_URL,
    POOL_SIZE,
    cause_of,
    connect,
    session_options,
    spoils,
)


def open_engine(url: str) -> AsyncEngine:
    """An engine whose sessions are bounded as those of the raw pool."""
    engine = create_async_engine(
        async_url(url),
        pool_size=POOL_SIZE,
        max_overflow=0,
        pool_timeout=ACQUIRE_SECONDS,
        pool_recycle=1800,
        pool_use_lifo=True,
        isolation_level="AUTOCOMMIT",
        connect_args={"async_creator_fn": connect, **session_options(BOUNDED)},
    )
    event.listen(engine.sync_engine, "handle_error", _give_up_spoilt)
    return engine


def async_url(url: str) -> URL:
    """A plain `postgresql://` DSN as SQLAlchemy wants it for asyncpg."""
    return make_url(url).set(drivername="postgresql+asyncpg")


def _give_up_spoilt(context: ExceptionContext) -> None:
    """SQLAlchemy keeps a session unless its socket is closed; one that only lost its way would fail for ever."""
    if spoils(cause_of(context.original_exception)):
        context.is_disconnect = True
        if context.connection is not None:
            broken: Any = context.connection.connection.driver_connection
            broken.terminate()  # at once: SQLAlchemy would first say goodbye to a server that may not hear


async def migrate(url: str, schema: str, versions: Path) -> None:
    """Bring a schema to its newest revision, under a lock."""
    engine = create_async_engine(
        async_url(url),
        poolclass=NullPool,
        connect_args={"async_creator_fn": connect, **session_options(LASTING, seconds=None)},
    )
    async with engine.begin() as connection:
        await connection.execute(
            text("SELECT pg_advisory_xact_lock(hashtext(:name))"), {"name": f"migrate:{schema}"}
        )
        await connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{schema}"'))
        await connection.run_sync(_upgrade, schema, versions)


def _upgrade(connection: Connection, schema: str, versions: Path) -> None:
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


if __name__ == "__main__":
    asyncio.run(migrate(os.environ[MIGRATION_URL], sys.argv[1], Path(sys.argv[2])))
