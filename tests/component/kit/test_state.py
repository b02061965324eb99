"""State on a real sidecar: what one message cannot hold, and rows that a frozen owner keeps locked."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest
from pydantic import BaseModel

from services.cli.stack import Stack
from services.kit.sidecar import Sidecar, SidecarError, StateWrite
from services.kit.state import DurableState
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
async def sidecar(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sidecar]:
    """The sidecar of the tests' app."""
    monkeypatch.setenv("DAPR_API_TOKEN", stack.api_token("workflows"))
    ports = stack.spec("workflows-daprd").ports
    opened = Sidecar(f"127.0.0.1:{ports['gRPC of the sidecar of workflows']}")
    yield opened
    await opened.close()


@requirement("kit:large-reads")
async def test_rows_that_no_message_could_hold_are_read_in_order(sidecar: Sidecar) -> None:
    prefix = f"Large/{uuid.uuid4().hex}"
    keys = [f"{prefix}/{number}" for number in range(ROWS)]
    rows = [StateWrite(key, f'"{key[-3:]:x<{TEXT_BYTES}}"'.encode()) for key in keys]
    for first in range(0, ROWS, ROWS_AT_ONCE):
        await sidecar.write(rows[first : first + ROWS_AT_ONCE])
    wanted = [*keys[:50], f"{prefix}/missing", *keys[50:]]
    found = await sidecar.read_many(wanted)
    assert [row.key for row in found] == wanted
    assert [row.data for row in found if row.data] == [row.data for row in rows]
    assert all(row.etag for row in found if row.data)
    assert found[50].data == b""


@requirement("kit:whole-reads")
async def test_a_read_that_breaks_midway_loses_no_row(stack: Stack, sidecar: Sidecar) -> None:
    prefix = f"Whole/{uuid.uuid4().hex}"
    rows = [StateWrite(f"{prefix}/{number}", b"1") for number in range(20)]
    await sidecar.write(rows)
    keys = [*(row.key for row in rows), f"{prefix}/missing"]
    # Once the statement is prepared in every session, it is the rows that fail, and not the statement.
    await asyncio.gather(*(sidecar.read_many(keys) for _ in range(4 * ROWS_AT_ONCE)))
    other = await asyncpg.connect(stack.database_url())
    try:
        async with other.transaction():
            await other.execute("LOCK TABLE dapr.state IN ACCESS EXCLUSIVE MODE")
            reading = asyncio.create_task(sidecar.read_many(keys))

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


async def test_a_transaction_that_no_message_could_hold_is_refused_whole(
    sidecar: Sidecar,
) -> None:
    key = f"Large/{uuid.uuid4().hex}"
    with pytest.raises(SidecarError):
        await sidecar.write([StateWrite(key, b"1"), StateWrite(f"{key}/b", b"1" * 5 * 1024 * 1024)])
    assert (await sidecar.read(key)).data == b""


class Count(BaseModel):
    """A head."""

    count: int


async def hold_head(url: str, prefix: str) -> asyncpg.Connection:
    """A session that has locked an actor's head and says nothing more, as one of a frozen sidecar."""
    holder = await asyncpg.connect(url)
    await holder.execute("BEGIN")
    locked = await holder.fetch(
        "SELECT 1 FROM dapr.state WHERE key LIKE '%' || $1 FOR UPDATE", f"{prefix}/head"
    )
    assert len(locked) == 1
    return holder


@requirement("kit:frozen-owner")
async def test_an_append_outlives_an_owner_that_froze_with_the_head_locked(
    stack: Stack, sidecar: Sidecar
) -> None:
    prefix = f"Frozen/{uuid.uuid4().hex}"
    state = DurableState(sidecar, prefix, Count)
    await state.load()
    await state.commit(Count(count=1))
    holder = await hold_head(stack.environment.secrets["postgresConnectionString"], prefix)
    await state.load()
    await state.commit(Count(count=2))  # within the 15 s that a call may take
    assert await state.load() == Count(count=2)
    holder.terminate()


@requirement("kit:frozen-owner")
async def test_the_sidecar_does_not_wait_for_a_lock_until_its_caller_gives_up(
    stack: Stack, sidecar: Sidecar
) -> None:
    prefix = f"Frozen/{uuid.uuid4().hex}"
    state = DurableState(sidecar, prefix, Count)
    await state.load()
    await state.commit(Count(count=1))
    await state.load()
    holder = await hold_head(stack.database_url(), prefix)  # nothing ends this session
    with pytest.raises(SidecarError) as refused:
        await state.commit(Count(count=2))
    assert refused.value.answered
    holder.terminate()
    assert await state.load() == Count(count=1)
    await state.commit(Count(count=2))
