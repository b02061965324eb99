"""Both actor state stores on real servers: concurrent use, message limits, locks of frozen owners."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest
from pydantic import BaseModel

from services.cli.stack import Stack
from services.kit.dapr.sidecar import Sidecar
from services.kit.dapr.state import DurableState, StateConflict
from services.kit.dapr.state_component import ComponentStateStore
from services.kit.dapr.state_postgres import PostgresStateStore
from services.kit.dapr.state_rows import (
    StateStore,
    StateStoreError,
    StateWrite,
    StoredValue,
    WriteMode,
)
from services.kit.storage.db import Database
from tests.requirements import requirement
from tests.support.wait import wait_until

ROWS = 120
TEXT_BYTES = 64 * 1024
ROWS_AT_ONCE = 20
TERMINATE_READER = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE wait_event_type = 'Lock' AND query LIKE '%key = ANY%' AND pid <> pg_backend_pid()
"""


@pytest.fixture
async def component(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ComponentStateStore]:
    """The test app's rows through its sidecar."""
    monkeypatch.setenv("DAPR_API_TOKEN", stack.api_token("workflows"))
    ports = stack.spec("workflows-daprd").ports
    sidecar = Sidecar(f"127.0.0.1:{ports['gRPC of the sidecar of workflows']}")
    database = Database(stack.database_url())
    yield ComponentStateStore(sidecar, database)
    await database.close()
    await sidecar.close()


@pytest.fixture
async def postgres(stack: Stack) -> AsyncIterator[PostgresStateStore]:
    """The same rows by SQL."""
    database = Database(stack.database_url())
    yield PostgresStateStore(database, "workflows")
    await database.close()


@pytest.fixture(params=["component", "postgres"])
def store(
    request: pytest.FixtureRequest, component: ComponentStateStore, postgres: PostgresStateStore
) -> StateStore:
    return component if request.param == "component" else postgres


@requirement("kit:state-stores")
async def test_each_store_reads_and_guards_rows_of_the_other(
    component: ComponentStateStore, postgres: PostgresStateStore
) -> None:
    for number, (first, second) in enumerate([(component, postgres), (postgres, component)]):
        prefix = f"Ways/{uuid.uuid4().hex}"
        one, two = (DurableState(each, prefix, Count) for each in (first, second))
        assert await one.load() is None
        await one.commit(Count(count=1), add={"row/1": Count(count=number)})
        assert await two.load() == Count(count=1)
        assert await two.row("row/1", Count) == Count(count=number)
        await two.commit(Count(count=2), put={"row/1": Count(count=7)})
        with pytest.raises(StateConflict):
            await one.commit(Count(count=2), add={"row/2": Count(count=0)}, remove=["row/1"])
        assert await one.load() == Count(count=2)
        assert await one.rows(["row/1", "row/2"], Count) == [Count(count=7), None]
        await one.commit(Count(count=3), remove=["row/1"])
        two.forget()
        await two.erase()
        one.forget()
        assert [await one.load(), await two.load(), await one.row("row/1", Count)] == [None] * 3


@requirement("kit:state-stores")
async def test_a_transaction_with_a_broken_condition_writes_nothing(store: StateStore) -> None:
    key = f"Whole/{uuid.uuid4().hex}"
    await store.write([StateWrite(f"{key}/there", b"1")], exclusive=True)
    etag = (await store.read(f"{key}/there")).etag
    other = str(uuid.uuid4())
    for broken in (
        StateWrite(f"{key}/there", b"2", WriteMode.NEW),
        StateWrite(f"{key}/there", b"2", WriteMode.MATCH, other),
        StateWrite(f"{key}/missing", b"2", WriteMode.MATCH, other),
        StateWrite(f"{key}/there", None, WriteMode.MATCH, other),
    ):
        with pytest.raises(StateStoreError) as refused:
            await store.write([StateWrite(f"{key}/other", b"2"), broken], exclusive=True)
        assert refused.value.answered
    assert await store.read(f"{key}/there") == StoredValue(f"{key}/there", b"1", etag)
    assert (await store.read(f"{key}/other")).data == b""
    await store.write([StateWrite(f"{key}/there", None, WriteMode.MATCH, etag)], exclusive=True)
    assert (await store.read(f"{key}/there")).data == b""


@requirement("kit:state-stores")
async def test_a_broken_condition_fails_its_own_writer_among_concurrent_ones(
    store: StateStore,
) -> None:
    key = f"Merged/{uuid.uuid4().hex}"
    await store.write([StateWrite(f"{key}/taken", b"0")])

    async def write(number: int) -> str:
        name = f"{key}/taken" if number % 5 == 0 else f"{key}/{number}"
        try:
            await store.write([StateWrite(name, b"1", WriteMode.NEW)])
        except StateStoreError:
            return "refused"
        return "written"

    outcomes = await asyncio.gather(*(write(number) for number in range(40)))
    assert outcomes == ["refused" if number % 5 == 0 else "written" for number in range(40)]
    found = await store.read_many([f"{key}/{number}" for number in range(40)])
    assert [bool(row.data) for row in found] == [number % 5 != 0 for number in range(40)]


@requirement("kit:large-reads")
async def test_rows_over_the_message_limit_are_read_in_order(store: StateStore) -> None:
    prefix = f"Large/{uuid.uuid4().hex}"
    keys = [f"{prefix}/{number}" for number in range(ROWS)]
    rows = [StateWrite(key, f'"{key[-3:]:x<{TEXT_BYTES}}"'.encode()) for key in keys]
    for first in range(0, ROWS, ROWS_AT_ONCE):
        await store.write(rows[first : first + ROWS_AT_ONCE])
    wanted = [*keys[:50], f"{prefix}/missing", *keys[50:]]
    found = await store.read_many(wanted)
    assert [row.key for row in found] == wanted
    assert [row.data for row in found if row.data] == [row.data for row in rows]
    assert all(row.etag for row in found if row.data)
    assert found[50].data == b""


@requirement("kit:complete-reads")
async def test_a_read_that_breaks_midway_loses_no_row(
    stack: Stack, component: ComponentStateStore
) -> None:
    prefix = f"Whole/{uuid.uuid4().hex}"
    rows = [StateWrite(f"{prefix}/{number}", b"1") for number in range(20)]
    await component.write(rows)
    keys = [*(row.key for row in rows), f"{prefix}/missing"]
    # Prepare the statement in every session first, so that reading the rows fails, not preparing.
    await asyncio.gather(*(component.read_many(keys) for _ in range(4 * ROWS_AT_ONCE)))
    other = await asyncpg.connect(stack.database_url())
    try:
        async with other.transaction():
            await other.execute("LOCK TABLE dapr.state IN ACCESS EXCLUSIVE MODE")
            reading = asyncio.create_task(component.read_many(keys))

            async def terminated() -> bool:
                return await other.fetchval(TERMINATE_READER) is True

            await wait_until(terminated, 10, "the read to wait for the lock")
        found = await reading
    finally:
        await other.close()
    assert [(row.key, row.data) for row in found] == [
        *((row.key, b"1") for row in rows),
        (keys[-1], b""),
    ]


async def test_a_transaction_over_the_message_limit_is_refused_as_a_whole(
    component: ComponentStateStore,
) -> None:
    key = f"Large/{uuid.uuid4().hex}"
    with pytest.raises(StateStoreError):
        await component.write(
            [StateWrite(key, b"1"), StateWrite(f"{key}/b", b"1" * 5 * 1024 * 1024)]
        )
    assert (await component.read(key)).data == b""


class Count(BaseModel):
    """A head."""

    count: int


async def hold_head(url: str, prefix: str) -> asyncpg.Connection:
    """An idle session that locks an actor's head, like that of a frozen sidecar."""
    holder = await asyncpg.connect(url)
    await holder.execute("BEGIN")
    locked = await holder.fetch(
        "SELECT 1 FROM dapr.state WHERE key LIKE '%' || $1 FOR UPDATE", f"{prefix}/head"
    )
    assert len(locked) == 1
    return holder


@requirement("kit:frozen-owner")
async def test_an_append_succeeds_although_a_frozen_owner_locks_the_head(
    stack: Stack, store: StateStore
) -> None:
    prefix = f"Frozen/{uuid.uuid4().hex}"
    state = DurableState(store, prefix, Count)
    await state.load()
    await state.commit(Count(count=1))
    holder = await hold_head(stack.environment.secrets["postgresConnectionString"], prefix)
    await state.load()
    await state.commit(Count(count=2))  # within the 15 s timeout of a call
    assert await state.load() == Count(count=2)
    holder.terminate()


@requirement("kit:frozen-owner")
async def test_a_commit_fails_on_a_lock_before_its_caller_times_out(
    stack: Stack, store: StateStore
) -> None:
    prefix = f"Frozen/{uuid.uuid4().hex}"
    state = DurableState(store, prefix, Count)
    await state.load()
    await state.commit(Count(count=1))
    await state.load()
    holder = await hold_head(stack.database_url(), prefix)  # no timeout ends this session
    with pytest.raises(StateStoreError):
        await state.commit(Count(count=2))
    holder.terminate()
    assert await state.load() == Count(count=1)
    await state.commit(Count(count=2))
