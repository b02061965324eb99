"""Postgres: pooled connections, and migrations that run once however many replicas start."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import asyncpg
import structlog
from sqlalchemy import Connection, NullPool, event, text
from sqlalchemy.engine import URL, CursorResult, ExceptionContext, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.sql import Executable

from services.kit.sidecar import unavailable

STATEMENT_TIMEOUT_SECONDS: Final = 15.0
ACQUIRE_SECONDS: Final = 5.0
"""How long a caller waits for a connection when all are busy or the server takes none."""
CLOSE_SECONDS: Final = 2.0
IDLE_SECONDS: Final = 60.0
"""After how long a connection that a burst needed is closed: each costs the server some 5 MB."""
POOL_SIZE: Final = 8
"""Connections per app and kind; a statement takes about a millisecond, so a few serve many callers."""

LASTING: Final[Mapping[str, str]] = {
    "application_name": "yocaso",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "3",
    "tcp_keepalives_count": "3",
}
"""What the server is told of every session: within 20 s it ends those whose client has vanished."""
BOUNDED: Final[Mapping[str, str]] = {
    **LASTING,
    "statement_timeout": "12s",
    "lock_timeout": "8s",
    "idle_in_transaction_session_timeout": "8s",
}
"""What it is told of the sessions of a pool: a frozen process blocks nobody for longer. Migrations may wait."""

GONE: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.exceptions.OperatorInterventionError,
    asyncpg.exceptions.InsufficientResourcesError,
    asyncpg.exceptions.IdleInTransactionSessionTimeoutError,
    asyncpg.exceptions.LockNotAvailableError,
    asyncpg.exceptions.TransactionRollbackError,
    asyncpg.exceptions.ReadOnlySQLTransactionError,
    PoolTimeout,
    OSError,
)
"""How a server that is away, starts, stops or is overloaded shows itself; a statement that took too long is among them."""

_driver: Any = asyncpg  # it ships no types
_DRIVER_ERRORS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

log = structlog.get_logger()


class Database:
    """One Postgres database. Each call is one statement and its own transaction, durable when it returns.

    `execute` takes SQLAlchemy's statements. `fetch` takes SQL as Postgres has it, without SQLAlchemy's share of
    about 0.4 ms: for the event log, where every token passes. A caller that is cancelled leaves its statement
    running: it is whole or not at all, and the connection stays usable.
    """

    def __init__(self, url: str) -> None:
        self._url = async_url(url)
        self._pool: Any = None
        self._opening = asyncio.Lock()
        self.engine: AsyncEngine = create_async_engine(
            self._url,
            pool_size=POOL_SIZE,
            max_overflow=0,
            pool_timeout=ACQUIRE_SECONDS,
            pool_recycle=1800,
            pool_use_lifo=True,
            isolation_level="AUTOCOMMIT",
            connect_args={"async_creator_fn": _connect, **_options(BOUNDED)},
        )
        event.listen(self.engine.sync_engine, "handle_error", _give_up_spoilt)

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
            return await _uncancelled(self._on_connection("fetch", statement, arguments))

    async def fetch_one(self, statement: str, *arguments: Any) -> Any:
        """Run one statement in Postgres's own SQL; its row, or None. UNAVAILABLE as for `execute`."""
        with _reaching():
            return await _uncancelled(self._on_connection("fetchrow", statement, arguments))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Several of SQLAlchemy's statements as one transaction. UNAVAILABLE as for `execute`."""
        engine = self.engine.execution_options(isolation_level="READ COMMITTED")
        with _reaching():
            async with engine.begin() as connection:
                yield connection

    async def migrate(self, schema: str, versions: Path) -> None:
        """Bring a schema to its newest revision; replicas that start together wait for one another."""
        engine = create_async_engine(
            self._url,
            poolclass=NullPool,
            connect_args={"async_creator_fn": _connect, **_options(LASTING, seconds=None)},
        )
        with _reaching():
            async with engine.begin() as connection:
                await connection.execute(
                    text("SELECT pg_advisory_xact_lock(hashtext(:name))"),
                    {"name": f"migrate:{schema}"},
                )
                await connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{schema}"'))
                await connection.run_sync(_upgrade, schema, versions)

    async def close(self) -> None:
        """Close every connection; a server that does not answer is not waited for."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                if self._pool is not None:
                    await self._pool.close()
                await self.engine.dispose()
        except GONE:
            log.warning("database.closed_in_haste")

    async def _execute(
        self, statement: Executable, parameters: Mapping[str, Any] | None
    ) -> CursorResult[Any]:
        async with self.engine.connect() as connection:
            return await connection.execute(statement, parameters)

    async def _on_connection(self, method: str, statement: str, arguments: tuple[Any, ...]) -> Any:
        async with asyncio.timeout(ACQUIRE_SECONDS):
            pool = self._pool or await self._open()
            connection: Any = await pool.acquire()
        try:
            return await getattr(connection, method)(statement, *arguments)
        except BaseException as error:
            if _spoils(error):
                connection.terminate()
            raise
        finally:
            await pool.release(connection, timeout=ACQUIRE_SECONDS)

    async def _open(self) -> Any:
        async with self._opening:
            if self._pool is None:
                self._pool = await _driver.create_pool(
                    self._url.set(drivername="postgresql").render_as_string(hide_password=False),
                    min_size=1,
                    max_size=POOL_SIZE,
                    max_inactive_connection_lifetime=IDLE_SECONDS,
                    connect=_connect,
                    reset=_leave,
                    **_options(BOUNDED),
                )
        return self._pool


def _options(settings: Mapping[str, str], **bound: float | None) -> dict[str, Any]:
    return {
        "timeout": ACQUIRE_SECONDS,
        "command_timeout": bound.get("seconds", STATEMENT_TIMEOUT_SECONDS),
        "server_settings": dict(settings),
    }


async def _connect(*arguments: Any, **options: Any) -> Any:
    """A connection that notices within 20 s when its server has vanished, also while it only waits in a pool."""
    connection = await _driver.connect(*arguments, **options)
    raw: socket.socket | None = connection._transport.get_extra_info("socket")
    if raw is not None and raw.family != socket.AF_UNIX:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 3), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, name):
                raw.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connection


async def _leave(_: asyncpg.Connection) -> None:
    """A statement by itself leaves nothing behind in its session; to clean up would be a second round trip."""


def _spoils(error: BaseException) -> bool:
    """Whether a session must not be used again: all failures but the server's plain refusal of a statement."""
    return not isinstance(error, asyncpg.PostgresError) or error.as_dict().get("severity_en") in (
        "FATAL",
        "PANIC",
    )


def _cause(error: BaseException) -> BaseException:
    """What the driver raised, where SQLAlchemy has wrapped it."""
    wrapped = error.orig if isinstance(error, DBAPIError) and error.orig else error
    return wrapped.__cause__ if isinstance(wrapped.__cause__, _DRIVER_ERRORS) else wrapped


def _give_up_spoilt(context: ExceptionContext) -> None:
    """SQLAlchemy keeps a session unless its socket is closed; one that only lost its way would fail for ever."""
    if _spoils(_cause(context.original_exception)):
        context.is_disconnect = True
        if context.connection is not None:
            broken: Any = context.connection.connection.driver_connection
            broken.terminate()  # at once: SQLAlchemy would first say goodbye to a server that may not hear


@contextmanager
def _reaching() -> Iterator[None]:
    """A server that restarts is a passing failure, not a bug."""
    try:
        yield
    except (DBAPIError, *GONE) as error:
        cause = _cause(error)
        if not isinstance(cause, GONE):
            raise
        log.warning("database.unreachable", error=type(cause).__name__)
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
