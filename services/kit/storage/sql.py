"""SQLAlchemy engines and Alembic migrations: `python -m services.kit.storage.sql SCHEMA VERSIONS`."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, NullPool, event
from sqlalchemy.engine import URL, ExceptionContext, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.schema import CreateSchema

from services.kit.storage.db import (
    ACQUIRE_SECONDS,
    BOUNDED,
    KEEPALIVE,
    MIGRATION_URL,
    POOL_SIZE,
    Transaction,
    breaks_session,
    cause_of,
    connect,
    hide_values,
    session_options,
)


def open_engine(url: str) -> AsyncEngine:
    """An engine with the session options of the asyncpg pool."""
    engine = create_async_engine(
        async_url(url),
        pool_size=POOL_SIZE,
        max_overflow=0,
        pool_timeout=ACQUIRE_SECONDS,
        pool_recycle=1800,
        pool_use_lifo=True,
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,
        connect_args={"async_creator_fn": connect, **session_options(BOUNDED)},
    )
    event.listen(engine.sync_engine, "handle_error", _handle_error)
    return engine


def async_url(url: str) -> URL:
    """A `postgresql://` DSN with SQLAlchemy's driver name for asyncpg."""
    return make_url(url).set(drivername="postgresql+asyncpg")


def _handle_error(context: ExceptionContext) -> None:
    """Hide parameter values, and close broken sessions: SQLAlchemy keeps any session whose socket is open."""
    cause = cause_of(context.original_exception)
    if hide_values(cause):
        for wrapper in (context.original_exception, context.sqlalchemy_exception):
            if wrapper not in (None, cause):
                wrapper.args = (str(cause),)
    if breaks_session(cause):
        context.is_disconnect = True
        if context.connection is not None:
            broken: Any = context.connection.connection.driver_connection
            broken.terminate()  # SQLAlchemy would first wait for a server that may not answer


async def migrate(url: str, schema: str, versions: Path) -> None:
    """Bring a schema to its newest revision, under an advisory lock."""
    engine = create_async_engine(
        async_url(url),
        poolclass=NullPool,
        hide_parameters=True,
        connect_args={"async_creator_fn": connect, **session_options(KEEPALIVE, seconds=None)},
    )
    event.listen(engine.sync_engine, "handle_error", _handle_error)
    async with engine.begin() as connection:
        await Transaction(connection).advisory_lock(f"migrate:{schema}")
        await connection.execute(CreateSchema(schema, if_not_exists=True))
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
