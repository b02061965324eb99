"""Migrations and idempotency records on a real Postgres."""

import asyncio
import uuid

import pytest
from sqlalchemy import text

from services.kit.errors import ErrorCode, RpcError
from services.kit.eventlog import MIGRATIONS, migrate_event_log
from services.kit.http.idempotency import IdempotencyKey, IdempotencyRecords, StoredReply
from services.kit.storage.db import Database
from tests.requirements import requirement


@requirement("kit:migrations")
async def test_replicas_that_start_together_migrate_once(empty_database_url: str) -> None:
    replicas = [Database(empty_database_url) for _ in range(4)]
    await asyncio.gather(*(migrate_event_log(replica) for replica in replicas))
    rows = await replicas[0].execute(text("SELECT version_num FROM events.alembic_version"))
    found = rows.scalars().all()
    for replica in replicas:
        await replica.close()
    assert found == [max(path.stem[:4] for path in MIGRATIONS.glob("[0-9]*.py"))]


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


async def test_a_repeat_during_the_first_call_gets_retry_after(database: Database) -> None:
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
async def test_a_transient_error_is_not_stored(database: Database, status: int) -> None:
    records, key = IdempotencyRecords(database), a_key()
    await records.run(key, b"body", lambda: reply(status))
    assert await records.run(key, b"body", reply) == (StoredReply(200, b"{}"), False)


async def test_the_key_of_a_dead_process_is_free_when_its_lease_expires(database: Database) -> None:
    records, key = IdempotencyRecords(database), a_key()
    scope = (key.caller, key.operation, key.key)
    assert await records._reserve(scope, uuid.uuid4(), b"f") is None
    expire = "UPDATE events.idempotency SET lease_until = now() - interval '1 s' WHERE key = $1"
    await database.fetch(expire, key.key)
    with pytest.raises(RpcError):
        await records._reserve(scope, uuid.uuid4(), b"other")
    assert await records._reserve(scope, uuid.uuid4(), b"f") is None


async def test_after_a_day_a_key_is_new_and_old_records_are_purged(database: Database) -> None:
    records, key = IdempotencyRecords(database), a_key()
    await records.run(key, b"body", reply)
    age = "UPDATE events.idempotency SET created_at = now() - interval '25 h' WHERE key = $1"
    await database.fetch(age, key.key)
    assert (await records.run(key, b"other", reply))[1] is False
    await database.fetch(age, key.key)
    assert await records.purge(1) == 1
    assert await database.fetch("SELECT 1 FROM events.idempotency WHERE key = $1", key.key) == []
