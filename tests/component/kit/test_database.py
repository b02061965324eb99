"""Connections to a real Postgres that is ended, killed, frozen or cut off while statements run."""

import asyncio
import contextlib
import secrets
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from services.cli.stack import Stack
from services.kit.errors import ErrorCode, RpcError
from services.kit.storage import db
from services.kit.storage.db import Database
from tests.requirements import requirement
from tests.support.wait import wait_until

Run = Callable[[Database, str], Awaitable[object]]


async def by_fetch(database: Database, statement: str) -> object:
    return (await database.fetch_one(statement))[0]


async def by_execute(database: Database, statement: str) -> object:
    return (await database.execute(text(statement))).scalar()


async def by_transaction(database: Database, statement: str) -> object:
    async with database.transaction() as transaction:
        return (await transaction.execute(text(statement))).scalar()


WAYS = pytest.mark.parametrize("run", [by_fetch, by_execute, by_transaction])


class HalfOpenProxy:
    """Passes every byte on, but never tells the client that the server has hung up."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.ended_by_server = 0

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._target)
        self._writers += [writer, back]
        for source, sink, hides in ((reader, back, False), (there, writer, True)):
            task = asyncio.create_task(self._pass_on(source, sink, hides))
            self._tasks.add(task)

    async def _pass_on(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, hides: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while piece := await source.read(65_536):
                sink.write(piece)
                await sink.drain()
        if hides:
            self.ended_by_server += 1
        else:
            sink.close()


@pytest.fixture
async def proxy(database_url: str) -> tuple[HalfOpenProxy, str]:
    """A proxy before Postgres, and the URL that leads through it; whoever uses it closes it."""
    url = make_url(database_url)
    proxy = HalfOpenProxy(url.host or "", url.port or 0)
    through = url.set(port=await proxy.start())
    return proxy, through.render_as_string(hide_password=False)


@WAYS
@requirement("kit:database")
async def test_a_session_that_the_server_ended_is_not_used_again(
    run: Run, proxy: tuple[HalfOpenProxy, str], database_url: str
) -> None:
    between, url = proxy
    database, other = Database(url), await asyncpg.connect(database_url)
    for number in range(3):
        pid = await run(database, "SELECT pg_backend_pid()")
        await other.execute("SELECT pg_terminate_backend($1)", pid)
        await wait_until(lambda n=number: between.ended_by_server > n, 5, "the session to end")
        with pytest.raises(RpcError) as away:
            await run(database, "SELECT 1")
        assert away.value.code is ErrorCode.UNAVAILABLE
        assert await run(database, "SELECT 1") == 1
    await other.close()
    await between.close()
    await database.close()


@requirement("kit:database")
async def test_a_killed_postgres_is_unavailable_to_callers_and_then_serves_them_all(
    servers: Stack, database_url: str
) -> None:
    database = Database(database_url)
    stop, outcomes = asyncio.Event(), list[object]()

    async def call(number: int) -> None:
        run = (by_fetch, by_execute, by_transaction)[number % 3]
        while not stop.is_set():
            statement = asyncio.create_task(run(database, "SELECT 1 FROM pg_sleep(0.002)"))
            if number % 4 == 0:  # a caller that gives up
                await asyncio.sleep(0)
                statement.cancel()
            outcomes.extend(await asyncio.gather(statement, return_exceptions=True))
            await asyncio.sleep(0)

    callers = [asyncio.create_task(call(number)) for number in range(24)]
    for _ in range(3):
        seen = len(outcomes)
        await wait_until(
            lambda since=seen: outcomes[since:].count(1) > 50, 20, "statements to succeed"
        )
        pid = await asyncio.to_thread(servers.kill, "postgres")
        await asyncio.to_thread(servers.wait_exited, "postgres", pid)
        await asyncio.to_thread(servers.wait_ready, "postgres")
    stop.set()
    await asyncio.gather(*callers)
    raised = [each for each in outcomes if isinstance(each, Exception)]
    assert [each for each in raised if not isinstance(each, RpcError)] == []
    assert {each.code for each in raised if isinstance(each, RpcError)} == {ErrorCode.UNAVAILABLE}
    for run in (by_fetch, by_execute):
        assert await asyncio.gather(*(run(database, "SELECT 1") for _ in range(24))) == [1] * 24
    await database.close()


@WAYS
@requirement("kit:database")
async def test_a_statement_that_gets_no_answer_gives_its_connection_up(
    run: Run, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "STATEMENT_TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(db, "POOL_SIZE", 1)
    database = Database(database_url)
    first = await run(database, "SELECT pg_backend_pid()")
    with pytest.raises(RpcError) as late:
        await run(database, "SELECT pg_sleep(30)")
    assert late.value.code is ErrorCode.UNAVAILABLE
    assert await run(database, "SELECT pg_backend_pid()") != first
    await database.close()


@requirement("kit:database")
async def test_sessions_are_bounded_and_migrations_may_wait(
    database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(db, "BOUNDED", {**db.BOUNDED, "lock_timeout": "100ms"})
    database, holder = Database(database_url), await asyncpg.connect(database_url)
    versions = tmp_path / "0001_nothing.py"
    versions.write_text('revision, down_revision = "0001", None\n\n\ndef upgrade(): ...\n')
    name = "SELECT pg_advisory_lock(hashtext('migrate:waiting'))"
    await holder.execute(name)
    migrating = asyncio.create_task(database.migrate("waiting", tmp_path))
    for run in (by_fetch, by_execute, by_transaction):
        for setting in ("statement_timeout", "idle_in_transaction_session_timeout"):
            assert await run(database, f"SHOW {setting}") != "0"
        with pytest.raises(RpcError) as blocked:
            await run(database, name)
        assert blocked.value.code is ErrorCode.UNAVAILABLE
    assert not migrating.done()
    await holder.close()
    await migrating
    await database.close()


VALUE = "a value that is in no error"

Bind = Callable[[Database, str], Awaitable[object]]


async def bound_by_fetch(database: Database, statement: str) -> object:
    return await database.fetch(statement.replace(":value", "$1"), VALUE)


async def bound_by_execute(database: Database, statement: str) -> object:
    return await database.execute(text(statement), {"value": VALUE})


async def bound_by_transaction(database: Database, statement: str) -> object:
    async with database.transaction() as transaction:
        return await transaction.execute(text(statement), {"value": VALUE})


@pytest.mark.parametrize("run", [bound_by_fetch, bound_by_execute, bound_by_transaction])
@requirement("kit:database")
async def test_the_error_of_a_refused_statement_has_no_parameter_values(
    run: Bind, database_url: str
) -> None:
    database, table = Database(database_url), f"hidden_{secrets.token_hex(4)}"
    await database.fetch(f"CREATE TABLE {table} (name text UNIQUE, required int NOT NULL)")
    await database.fetch(f"INSERT INTO {table} VALUES ($1, 1)", VALUE)
    for statement in (
        f"INSERT INTO {table} VALUES (:value, 1)",  # DETAIL: the key
        f"INSERT INTO {table} VALUES (:value, NULL)",  # DETAIL: the whole row
        "SELECT CAST(CAST(:value AS text) AS int)",  # refused by the server
        "SELECT CAST(:value AS int)",  # refused by the driver
        "SELECT CAST(:value AS uuid)",  # refused by the driver, for a cause that quotes the value
    ):
        with pytest.raises(Exception) as refused:  # noqa: PT011 - the driver's or SQLAlchemy's
            await run(database, statement)
        shown = "".join(traceback.format_exception(refused.value))
        assert VALUE not in shown
        assert "asyncpg" in shown
    await database.fetch(f"DROP TABLE {table}")
    await database.close()


@requirement("kit:database")
async def test_an_advisory_lock_excludes_other_transactions_and_keeps_its_key(
    database_url: str,
) -> None:
    database, other = Database(database_url), await asyncpg.connect(database_url)
    name = f"lock-{secrets.token_hex(4)}"
    taken = "SELECT pg_try_advisory_xact_lock(hashtext($1))"
    async with database.exclusive(name):
        assert await other.fetchval(taken, name) is False
    assert await other.fetchval(taken, name) is True
    await other.close()
    await database.close()


async def test_a_refused_statement_is_a_bug_and_keeps_its_connection(database_url: str) -> None:
    database = Database(database_url)
    first = await by_fetch(database, "SELECT pg_backend_pid()")
    with pytest.raises(asyncpg.UndefinedTableError):
        await by_fetch(database, "SELECT 1 FROM no_such_table")
    with pytest.raises(asyncpg.DataError):
        await database.fetch("SELECT $1::int", "x")
    assert await by_fetch(database, "SELECT pg_backend_pid()") == first
    await database.close()


@requirement("kit:database")
@pytest.mark.parametrize(
    "own", [TimeoutError(), ConnectionRefusedError("another server"), KeyError("a bug")]
)
async def test_a_blocks_own_error_passes_unchanged_and_undoes_the_transaction(
    own: Exception, database_url: str
) -> None:
    database, name = Database(database_url), f"own_{secrets.token_hex(4)}"

    async def fail() -> None:
        async with database.transaction() as transaction:
            await transaction.execute(text(f"CREATE TABLE {name} ()"))
            raise own

    with pytest.raises(type(own)) as raised:
        await fail()
    assert raised.value is own
    assert await by_fetch(database, f"SELECT to_regclass('{name}')") is None
    await database.close()


@requirement("kit:database")
async def test_a_blocks_time_limit_amid_a_statement_is_its_own_error(database_url: str) -> None:
    database, called = Database(database_url), list[str]()

    async def take_too_long() -> None:
        async with database.transaction() as transaction:
            transaction.on_commit(lambda: called.append("committed"))
            async with asyncio.timeout(0.1):
                await transaction.execute(text("SELECT pg_sleep(20)"))

    with pytest.raises(TimeoutError):
        await take_too_long()
    assert await by_transaction(database, "SELECT 1") == 1
    assert called == []
    await database.close()


@requirement("kit:database")
@pytest.mark.parametrize("step", ["statement", "commit"])
async def test_a_session_that_ends_amid_a_transaction_is_unavailable(
    step: str, database_url: str
) -> None:
    database, other = Database(database_url), await asyncpg.connect(database_url)
    called = list[str]()

    async def lose_the_session() -> None:
        async with database.transaction() as transaction:
            transaction.on_commit(lambda: called.append("committed"))
            pid = (await transaction.execute(text("SELECT pg_backend_pid()"))).scalar()
            await other.execute("SELECT pg_terminate_backend($1, 5000)", pid)
            if step == "statement":
                await transaction.execute(text("SELECT 1"))

    with pytest.raises(RpcError) as away:
        await lose_the_session()
    assert away.value.code is ErrorCode.UNAVAILABLE
    assert called == []
    assert await by_transaction(database, "SELECT 1") == 1
    await other.close()
    await database.close()
