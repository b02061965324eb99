"""Postgres: pooled connections, and migrations that run once however many replicas start."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import structlog

from services.kit.dapr.sidecar import unavailable

if TYPE_CHECKING:  # SQLAlchemy takes 20 MB: only apps with tables of their own load it
    from sqlalchemy.engine import CursorResult
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
    from sqlalchemy.sql import Executable

STATEMENT_TIMEOUT_SECONDS: Final = 15.0
ACQUIRE_SECONDS: Final = 5.0
"""How long a caller waits for a connection when all are busy or the server takes none."""
CLOSE_SECONDS: Final = 2.0
MIGRATION_URL: Final = "YOCASO_MIGRATION_URL"
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
        self._url = url
        self._pool: Any = None
        self._opening = asyncio.Lock()

    @cached_property
    def engine(self) -> "AsyncEngine":
        """SQLAlchemy's engine, opened when it is first used."""
        from services.kit.storage.sql import open_engine

        return open_engine(self._url)

    async def execute(
        self, statement: "Executable", parameters: Mapping[str, Any] | None = None
    ) -> "CursorResult[Any]":
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
    async def transaction(self) -> AsyncIterator["AsyncConnection"]:
        """Several of SQLAlchemy's statements as one transaction. UNAVAILABLE as for `execute`."""
        engine = self.engine.execution_options(isolation_level="READ COMMITTED")
        with _reaching():
            async with engine.begin() as connection:
                yield connection

    async def migrate(self, schema: str, versions: Path) -> None:
        """Bring a schema to its newest revision, in a process of its own: what migrates is not needed after that.

        Replicas that start together wait for one another.
        """
        if await self._revision(schema) == _newest(versions):
            return
        command = (sys.executable, "-m", "services.kit.storage.sql", schema, str(versions))
        child = await asyncio.create_subprocess_exec(
            *command, env={**os.environ, MIGRATION_URL: self._url}, stderr=asyncio.subprocess.PIPE
        )
        _, problem = await child.communicate()
        if child.returncode != 0:
            log.error("database.migration_failed", schema=schema, problem=problem.decode()[-2000:])
            raise unavailable(RuntimeError(f"migration of {schema}"))

    async def _revision(self, schema: str) -> str | None:
        exists = await self.fetch_one("SELECT to_regclass($1)", f"{schema}.alembic_version")
        if exists[0] is None:
            return None
        row = await self.fetch_one(f'SELECT version_num FROM "{schema}".alembic_version')  # noqa: S608 - ours
        return row[0] if row else None

    async def close(self) -> None:
        """Close every connection; a server that does not answer is not waited for."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                if self._pool is not None:
                    await self._pool.close()
                if "engine" in self.__dict__:
                    await self.engine.dispose()
        except GONE:
            log.warning("database.closed_in_haste")

    async def _execute(
        self, statement: "Executable", parameters: Mapping[str, Any] | None
    ) -> "CursorResult[Any]":
        async with self.engine.connect() as connection:
            return await connection.execute(statement, parameters)

    async def _on_connection(self, method: str, statement: str, arguments: tuple[Any, ...]) -> Any:
        async with asyncio.timeout(ACQUIRE_SECONDS):
            pool = self._pool or await self._open()
            connection: Any = await pool.acquire()
        try:
            return await getattr(connection, method)(statement, *arguments)
        except BaseException as error:
            if spoils(error):
                connection.terminate()
            raise
        finally:
            await pool.release(connection, timeout=ACQUIRE_SECONDS)

    async def _open(self) -> Any:
        async with self._opening:
            if self._pool is None:
                self._pool = await _driver.create_pool(
                    self._url,
                    min_size=1,
                    max_size=POOL_SIZE,
                    max_inactive_connection_lifetime=IDLE_SECONDS,
                    connect=connect,
                    reset=_leave,
                    **session_options(BOUNDED),
                )
        return self._pool


def session_options(settings: Mapping[str, str], **bound: float | None) -> dict[str, Any]:
    """What a connection is opened with."""
    return {
        "timeout": ACQUIRE_SECONDS,
        "command_timeout": bound.get("seconds", STATEMENT_TIMEOUT_SECONDS),
        "server_settings": dict(settings),
    }


async def connect(*arguments: Any, **options: Any) -> Any:
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


def spoils(error: BaseException) -> bool:
    """Whether a session must not be used again: all failures but the server's plain refusal of a statement."""
    return not isinstance(error, asyncpg.PostgresError) or error.as_dict().get("severity_en") in (
        "FATAL",
        "PANIC",
    )


def cause_of(error: BaseException) -> BaseException:
    """What the driver raised, where SQLAlchemy has wrapped it."""
    wrapped: BaseException = getattr(error, "orig", None) or error
    return wrapped.__cause__ if isinstance(wrapped.__cause__, _DRIVER_ERRORS) else wrapped


@contextmanager
def _reaching() -> Iterator[None]:
    """A server that restarts is a passing failure, not a bug."""
    try:
        yield
    except Exception as error:
        cause = cause_of(error)
        if not isinstance(cause, GONE) and not _is_pool_timeout(cause):
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


def _newest(versions: Path) -> str:
    return max(path.stem.partition("_")[0] for path in versions.glob("[0-9]*.py"))


def _is_pool_timeout(error: BaseException) -> bool:
    """Whether SQLAlchemy's pool had no connection to give."""
    return type(error).__module__ == "sqlalchemy.exc" and type(error).__name__ == "TimeoutError"
