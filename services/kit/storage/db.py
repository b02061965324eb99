"""Postgres: pooled connections, transactions, and migrations that run once per schema."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import structlog
from typing_extensions import override

from services.kit.errors import unavailable

if TYPE_CHECKING:  # SQLAlchemy takes 20 MB: only apps with tables of their own load it
    from sqlalchemy.engine import CursorResult
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
    from sqlalchemy.sql import Executable

STATEMENT_TIMEOUT_SECONDS: Final = 15.0
ACQUIRE_SECONDS: Final = 5.0
"""How long a caller waits for a connection when all are busy or the server refuses new ones."""
CLOSE_SECONDS: Final = 2.0
MIGRATION_URL: Final = "YOCASO_MIGRATION_URL"
IDLE_SECONDS: Final = 60.0
"""Idle time after which a connection is closed: each costs the server some 5 MB."""
POOL_SIZE: Final = 8
"""Connections per app and driver; a statement takes about a millisecond, so a few serve many callers."""

KEEPALIVE: Final[Mapping[str, str]] = {
    "application_name": "yocaso",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "3",
    "tcp_keepalives_count": "3",
}
"""Options of every session: the server ends a session 20 s after its client has vanished."""
BOUNDED: Final[Mapping[str, str]] = {
    **KEEPALIVE,
    "statement_timeout": "12s",
    "lock_timeout": "8s",
    "idle_in_transaction_session_timeout": "8s",
}
"""Options of pooled sessions: they bound how long a frozen process holds locks. Migrations are not bounded."""

UNREACHABLE: Final = (
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
"""Errors of a server that is down, starting, stopping or overloaded, and of statements that timed out."""
DATA_EXCEPTIONS: Final = "22"
"""The SQLSTATE class whose messages quote the refused value."""

_driver: Any = asyncpg  # ships no types
_DRIVER_ERRORS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

log = structlog.get_logger()


class Transaction:
    """SQLAlchemy statements that commit together."""

    def __init__(self, connection: "AsyncConnection") -> None:
        self._connection = connection
        self._callbacks: list[Callable[[], None]] = []

    def on_commit(self, callback: Callable[[], None]) -> None:
        """Call `callback` after the commit; never after a rollback."""
        self._callbacks.append(callback)

    def committed(self) -> None:
        """Run the callbacks."""
        for callback in self._callbacks:
            callback()

    async def execute(
        self, statement: "Executable", parameters: Mapping[str, Any] | None = None
    ) -> "CursorResult[Any]":
        """Run a SQLAlchemy statement. UNAVAILABLE as for `Database.execute`."""
        with _unavailable_if_unreachable():
            return await self._connection.execute(statement, parameters)

    async def advisory_lock(self, name: str) -> None:
        """Wait for the advisory lock of this name; it is released when the transaction ends."""
        from sqlalchemy import func, select

        await self.execute(select(func.pg_advisory_xact_lock(func.hashtext(name))))


class Database:
    """One Postgres database. Each call is one statement in its own transaction, durable when it returns.

    `execute` takes SQLAlchemy statements. `fetch` takes plain SQL and saves SQLAlchemy's 0.4 ms per call: for the
    event log, which every token passes. The statement of a cancelled caller runs to its end, so its connection stays
    usable.
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
        """Run a SQLAlchemy statement.

        Raises:
            RpcError: UNAVAILABLE while the server is away; the outcome of a write is unknown.
        """
        with _unavailable_if_unreachable():
            return await _shielded(self._execute(statement, parameters))

    async def fetch(self, statement: str, *arguments: Any) -> list[Any]:
        """Run a statement in plain SQL and return its rows. UNAVAILABLE as for `execute`."""
        with _unavailable_if_unreachable():
            return await _shielded(self._on_connection("fetch", statement, arguments))

    async def fetch_one(self, statement: str, *arguments: Any) -> Any:
        """Run a statement in plain SQL and return its first row, or None. UNAVAILABLE as for `execute`."""
        with _unavailable_if_unreachable():
            return await _shielded(self._on_connection("fetchrow", statement, arguments))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["Transaction"]:
        """Open a transaction that commits at the end of the block. UNAVAILABLE as for `execute`.

        The block's own errors pass unchanged, so a TimeoutError of its own never looks like an unreachable server.
        """
        engine = self.engine.execution_options(isolation_level="READ COMMITTED")
        block = _Block()
        with _unavailable_if_unreachable(block):
            async with engine.begin() as connection:
                transaction = Transaction(connection)
                with block:
                    yield transaction
        transaction.committed()

    @asynccontextmanager
    async def exclusive(self, name: str) -> AsyncIterator["Transaction"]:
        """Open a transaction that holds the advisory lock of this name, so one process at a time is in the block."""
        async with self.transaction() as transaction:
            await transaction.advisory_lock(name)
            yield transaction

    async def migrate(self, schema: str, versions: Path) -> None:
        """Bring a schema to its newest revision, in a child process: Alembic's memory is freed with it.

        Replicas that start together run one after the other.
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
            raise unavailable()

    async def _revision(self, schema: str) -> str | None:
        exists = await self.fetch_one("SELECT to_regclass($1)", f"{schema}.alembic_version")
        if exists[0] is None:
            return None
        row = await self.fetch_one(f'SELECT version_num FROM "{schema}".alembic_version')  # noqa: S608 - ours
        return row[0] if row else None

    async def close(self) -> None:
        """Close every connection, within `CLOSE_SECONDS` if the server does not answer."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                if self._pool is not None:
                    await self._pool.close()
                if "engine" in self.__dict__:
                    await self.engine.dispose()
        except UNREACHABLE:
            log.warning("database.close_timed_out")

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
            hide_values(error)
            if breaks_session(error):
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
                    reset=_skip_reset,
                    **session_options(BOUNDED),
                )
        return self._pool


def session_options(settings: Mapping[str, str], **bound: float | None) -> dict[str, Any]:
    """Arguments for `connect`."""
    return {
        "timeout": ACQUIRE_SECONDS,
        "command_timeout": bound.get("seconds", STATEMENT_TIMEOUT_SECONDS),
        "server_settings": dict(settings),
    }


async def connect(*arguments: Any, **options: Any) -> Any:
    """Open a connection with TCP keepalive: it fails 20 s after its server has vanished, also while it is idle."""
    connection = await _driver.connect(*arguments, **options)
    raw: socket.socket | None = connection._transport.get_extra_info("socket")
    if raw is not None and raw.family != socket.AF_UNIX:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 3), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, name):
                raw.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connection


async def _skip_reset(_: asyncpg.Connection) -> None:
    """Single statements leave no session state, and the default reset costs a round trip."""


def breaks_session(error: BaseException) -> bool:
    """Whether the session must be closed: after any failure but the server's refusal of a statement."""
    return not isinstance(error, asyncpg.PostgresError) or error.as_dict().get("severity_en") in (
        "FATAL",
        "PANIC",
    )


def cause_of(error: BaseException) -> BaseException:
    """The driver's error, unwrapped from SQLAlchemy's."""
    wrapped: BaseException = getattr(error, "orig", None) or error
    return wrapped.__cause__ if isinstance(wrapped.__cause__, _DRIVER_ERRORS) else wrapped


def hide_values(error: BaseException) -> bool:
    """Remove parameter values from a driver error before it is logged; False for any other error.

    DETAIL quotes keys and whole rows; the messages of data exceptions, and their causes, quote the value.
    """
    if not isinstance(error, _DRIVER_ERRORS):
        return False
    driver_error: Any = error
    driver_error.detail = None
    sqlstate: str = getattr(error, "sqlstate", None) or ""
    if sqlstate.startswith(DATA_EXCEPTIONS) or isinstance(error, ValueError):
        error.args = (f"{type(error).__name__}: a value was refused",)
        error.__cause__ = None
    return True


class _Block(AbstractContextManager[None]):
    """Notes the error with which a block of the caller ended: it says nothing about the server."""

    error: BaseException | None = None

    @override
    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self.error = error


@contextmanager
def _unavailable_if_unreachable(block: _Block | None = None) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        cause = cause_of(error)
        is_own = block is not None and error is block.error
        if is_own or not (isinstance(cause, UNREACHABLE) or _is_pool_timeout(cause)):
            raise
        log.warning("database.unreachable", error=type(cause).__name__)
        raise unavailable() from error


async def _shielded(statement: Any) -> Any:
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
    """Whether SQLAlchemy's pool had no free connection in time."""
    return type(error).__module__ == "sqlalchemy.exc" and type(error).__name__ == "TimeoutError"
