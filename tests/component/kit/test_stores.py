"""The event log and the idempotency records on a real Postgres and a real Valkey."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from sqlalchemy import text

from services.cli.stack import Stack
from services.kit.db import Database
from services.kit.errors import ErrorCode, RpcError
from services.kit.eventlog import (
    EventLog,
    NewEvent,
    Occupancy,
    StaleAttempt,
    migrate_event_log,
)
from services.kit.idempotency import IdempotencyKey, IdempotencyRecords, StoredReply
from services.kit.signals import Signals
from tests.requirements import requirement

END = NewEvent("run.completed", {}, terminal=True)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(database_url)
    await migrate_event_log(opened)
    yield opened
    await opened.close()


@pytest.fixture
async def log(database: Database, servers: Stack) -> AsyncIterator[EventLog]:
    signals = Signals(servers.url("valkey"))
    await signals.start()
    yield EventLog(database, signals)
    await signals.close()


async def a_stream(log: EventLog) -> str:
    stream_id = uuid.uuid4().hex
    assert await log.open(stream_id, kind="test", owner="alice", subject="s")
    return stream_id


@requirement("kit:migrations")
async def test_replicas_that_start_together_migrate_once(database_url: str) -> None:
    first = Database(database_url)
    await first.execute(text("DROP SCHEMA IF EXISTS events CASCADE"))
    replicas = [first, *(Database(database_url) for _ in range(3))]
    await asyncio.gather(*(migrate_event_log(replica) for replica in replicas))
    rows = await first.execute(text("SELECT version_num FROM events.alembic_version"))
    assert rows.scalars().all() == ["0003"]
    for replica in replicas:
        await replica.close()


@requirement("events:gap-free")
async def test_appends_at_once_leave_no_gap_and_no_repeat(log: EventLog) -> None:
    stream_id = await a_stream(log)
    await log.begin_attempt(stream_id)
    piece = [NewEvent("text.delta", {"text": "x"})] * 3
    await asyncio.gather(*(log.append(stream_id, 1, piece) for _ in range(20)))
    assert [event.seq for event in await log.read(stream_id)] == list(range(1, 61))


@requirement("turns:fenced")
async def test_an_older_attempt_writes_nothing_more(log: EventLog) -> None:
    stream_id = await a_stream(log)
    assert await log.begin_attempt(stream_id, first=True)
    assert await log.begin_attempt(stream_id, first=True) is None
    assert await log.begin_attempt(stream_id)
    with pytest.raises(StaleAttempt):
        await log.append(stream_id, 1, [NewEvent("custom")])
    with pytest.raises(StaleAttempt):
        await log.pulse(stream_id, 1)
    assert await log.read(stream_id) == []


async def test_nothing_follows_the_terminal_event(log: EventLog) -> None:
    stream_id = await a_stream(log)
    await log.begin_attempt(stream_id)
    await log.append(stream_id, 1, [END])
    with pytest.raises(StaleAttempt):
        await log.append(stream_id, 1, [END])
    assert not await log.close_stream(stream_id, END.type, END.data)
    assert await log.begin_attempt(stream_id) is None
    assert await log.wait_until_free(stream_id) is Occupancy.CLOSED
    assert len(await log.read(stream_id)) == 1


@requirement("kit:segments")
async def test_a_checkpoint_comes_with_its_events_and_outlives_the_attempt(log: EventLog) -> None:
    stream_id = await a_stream(log)
    await log.begin_attempt(stream_id)
    await log.append(stream_id, 1, [NewEvent("usage", {"n": 1})], checkpoint=("step", {"a": 1}))
    again = await log.begin_attempt(stream_id)
    assert again is not None
    assert (again.number, again.checkpoints, again.checkpoint_seq) == (2, {"step": {"a": 1}}, 1)


async def test_a_released_stream_is_free_at_once_and_a_living_attempt_keeps_it(
    log: EventLog,
) -> None:
    stream_id = await a_stream(log)
    await log.begin_attempt(stream_id)
    assert await log.occupancy(stream_id) is Occupancy.BUSY
    waiting = asyncio.create_task(log.wait_until_free(stream_id))
    await log.release(stream_id, 1)
    assert await asyncio.wait_for(waiting, 3) is Occupancy.FREE
    assert await log.wait_until_free("no such stream") is Occupancy.MISSING


async def test_an_idle_stream_is_claimed_by_one_sweeper(log: EventLog, database: Database) -> None:
    stream_id = await a_stream(log)
    await database.execute(
        text("UPDATE events.streams SET driven_at = now() - interval '1 hour' WHERE id = :id"),
        {"id": stream_id},
    )
    claims = await asyncio.gather(*(log.idle("test", timedelta(minutes=1), 50) for _ in range(3)))
    assert [head.stream_id for claim in claims for head in claim].count(stream_id) == 1


async def test_a_reader_follows_what_another_process_writes(log: EventLog) -> None:
    stream_id = await a_stream(log)
    await log.begin_attempt(stream_id)

    async def until_end() -> list[int]:
        seen: list[int] = []
        async for batch in log.follow(stream_id):
            seen += [event.seq for event in batch]
            if batch and batch[-1].type == END.type:
                return seen
        return seen

    reader = asyncio.create_task(until_end())
    for _ in range(3):
        await log.append(stream_id, 1, [NewEvent("custom")])
    await log.append(stream_id, 1, [END])
    assert await asyncio.wait_for(reader, 10) == [1, 2, 3, 4]


async def test_a_cancelled_caller_leaves_its_statement_whole(log: EventLog) -> None:
    stream_id = await a_stream(log)
    await log.begin_attempt(stream_id)
    append = asyncio.create_task(log.append(stream_id, 1, [NewEvent("custom")] * 2))
    await asyncio.sleep(0)
    append.cancel()
    await asyncio.gather(append, return_exceptions=True)
    await log.append(stream_id, 1, [END])
    assert [event.seq for event in await log.read(stream_id)] in ([1], [1, 2, 3])


def a_key() -> IdempotencyKey:
    return IdempotencyKey("alice", "/method", uuid.uuid4().hex)


async def reply(status: int = 200, body: bytes = b"{}") -> StoredReply:
    return StoredReply(status, body)


@requirement("kit:idempotency")
async def test_a_repeat_gets_the_stored_reply(database: Database) -> None:
    records, key = IdempotencyRecords(database), a_key()
    first = await records.run(key, b"body", lambda: reply(200, b"one"))
    assert first == (StoredReply(200, b"one"), False)
    assert await records.run(key, b"body", lambda: reply(200, b"two")) == (first[0], True)


async def test_another_body_is_refused_and_another_caller_is_not(database: Database) -> None:
    records, key = IdempotencyRecords(database), a_key()
    await records.run(key, b"body", reply)
    with pytest.raises(RpcError) as refused:
        await records.run(key, b"other", reply)
    assert refused.value.code is ErrorCode.IDEMPOTENCY_KEY_REUSED
    other = IdempotencyKey("bob", key.operation, key.key)
    assert (await records.run(other, b"other", reply))[1] is False


async def test_a_repeat_while_the_first_runs_is_told_to_come_back(database: Database) -> None:
    records, key = IdempotencyRecords(database), a_key()
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> StoredReply:
        begun.set()
        await go_on.wait()
        return await reply()

    first = asyncio.create_task(records.run(key, b"body", slow))
    await begun.wait()
    with pytest.raises(RpcError) as busy:
        await records.run(key, b"body", reply)
    assert busy.value.code is ErrorCode.ABORTED
    assert busy.value.retry_after is not None
    go_on.set()
    await first


@pytest.mark.parametrize("status", [500, 503, 409, 429])
async def test_a_passing_failure_is_not_kept(database: Database, status: int) -> None:
    records, key = IdempotencyRecords(database), a_key()
    await records.run(key, b"body", lambda: reply(status))
    assert await records.run(key, b"body", reply) == (StoredReply(200, b"{}"), False)


async def test_a_dead_holder_gives_way_when_its_lease_is_over(database: Database) -> None:
    records, key = IdempotencyRecords(database), a_key()
    scope = (key.caller, key.operation, key.key)
    assert await records._reserve(scope, uuid.uuid4(), b"f") is None
    expire = "UPDATE events.idempotency SET lease_until = now() - interval '1 s' WHERE key = $1"
    await database.fetch(expire, key.key)
    with pytest.raises(RpcError):
        await records._reserve(scope, uuid.uuid4(), b"other")
    assert await records._reserve(scope, uuid.uuid4(), b"f") is None


async def test_after_a_day_a_key_is_new_and_old_records_go(database: Database) -> None:
    records, key = IdempotencyRecords(database), a_key()
    await records.run(key, b"body", reply)
    age = "UPDATE events.idempotency SET created_at = now() - interval '25 h' WHERE key = $1"
    await database.fetch(age, key.key)
    assert (await records.run(key, b"other", reply))[1] is False
    await database.fetch(age, key.key)
    assert await records.purge(1) == 1
    assert await database.fetch("SELECT 1 FROM events.idempotency WHERE key = $1", key.key) == []
