"""Retention: compaction and deletion in batches, and reads of deleted events."""

import asyncio
import uuid
from datetime import timedelta

import pytest

from services.kit.errors import ErrorCode, RpcError
from services.kit.eventlog import (
    EventLog,
    NewEvent,
    NewStream,
    Purge,
    Retention,
)
from services.kit.eventlog.retention import EVENTS_PER_STREAM, STREAMS_PER_BATCH
from services.kit.http import idempotency
from services.kit.http.idempotency import IdempotencyKey, IdempotencyRecords, StoredReply
from services.kit.storage.db import Database
from services.kit.storage.wake_ups import WakeUps
from tests.requirements import requirement
from tests.support.wait import wait_until

HOUR = timedelta(hours=1)
END = NewEvent("run.completed", {}, terminal=True)


@pytest.fixture
def log(database: Database, wake_ups: WakeUps) -> EventLog:
    return EventLog(database, wake_ups, "retention")


async def a_stream(
    log: EventLog, database: Database, kind: str, *, events: int, ended_ago: timedelta | None
) -> str:
    stream_id = uuid.uuid4().hex
    await log.open_with_attempt(NewStream(stream_id, kind, "alice", "s"), [])
    await log.append(
        stream_id, 1, [NewEvent("text.delta", {"n": n}) for n in range(events)], checkpoint=("a", 1)
    )
    if ended_ago is not None:
        await log.append(stream_id, 1, [END])
        ended = "UPDATE events.streams SET closed_at = now() - $2::interval WHERE id = $1"
        await database.fetch(ended, stream_id, ended_ago)
    return stream_id


async def seqs(log: EventLog, stream_id: str, after: int = 0) -> list[int]:
    return [event.seq for event in await log.read(stream_id, after)]


def kind_of_its_own() -> str:
    return uuid.uuid4().hex


@requirement("kit:retention")
@pytest.mark.parametrize("events", [3, EVENTS_PER_STREAM * 2 + 7])
async def test_a_compacted_stream_keeps_its_terminal_event_and_reports_deleted_events(
    log: EventLog, database: Database, events: int
) -> None:
    kind = kind_of_its_own()
    old = await a_stream(log, database, kind, events=events, ended_ago=2 * HOUR)
    new = await a_stream(log, database, kind, events=3, ended_ago=HOUR / 2)
    running = await a_stream(log, database, kind, events=3, ended_ago=None)
    await Purge(database, [Retention(kind, events=HOUR, ending=24 * HOUR)]).run()
    assert await seqs(log, old, after=events) == [events + 1]
    assert await seqs(log, old, after=events + 1) == []
    for cursor in (0, 1, events - 1):
        with pytest.raises(RpcError) as gone:
            await log.read(old, cursor)
        assert gone.value.code is ErrorCode.OUT_OF_RANGE
    head = await log.head(old)
    assert head is not None
    assert (head.last_seq, head.closed_at is None) == (events + 1, False)
    points = "SELECT stream_id FROM events.checkpoints WHERE stream_id = ANY($1)"
    kept = {row[0] for row in await database.fetch(points, [old, new, running])}
    assert kept == {new, running}
    assert await seqs(log, new) == [1, 2, 3, 4]
    assert await seqs(log, running) == [1, 2, 3]


@requirement("kit:retention")
async def test_an_expired_stream_is_deleted_and_concurrent_purges_do_not_collide(
    log: EventLog, database: Database
) -> None:
    kind, number = kind_of_its_own(), STREAMS_PER_BATCH + 5
    for _ in range(number):
        await a_stream(log, database, kind, events=1, ended_ago=3 * HOUR)
    purges = [Purge(database, [Retention(kind, events=HOUR, ending=2 * HOUR)]) for _ in range(3)]
    await asyncio.gather(*(purge.run() for purge in purges))
    left = "SELECT count(*) FROM events.streams WHERE kind = $1"
    assert (await database.fetch_one(left, kind))[0] == 0


def test_the_terminal_event_is_kept_at_least_as_long_as_the_events() -> None:
    with pytest.raises(ValueError, match="turn"):
        Retention("turn", events=2 * HOUR, ending=HOUR)


@requirement("kit:retention")
async def test_expired_records_are_deleted_in_batches(
    database: Database,
) -> None:
    operation, old, batch = uuid.uuid4().hex, 2500, 1000
    fill = """
        INSERT INTO events.idempotency (caller, operation, key, fingerprint, owner, lease_until, status, created_at)
        SELECT 'alice', $1, n::text, '', gen_random_uuid(), now(), 200, now() - interval '25 h'
        FROM generate_series(1, $2) n
    """
    await database.fetch(fill, operation, old)
    records, sizes = IdempotencyRecords(database), list[int]()

    async def purge() -> int:
        sizes.append(await records.purge(batch))
        return sizes[-1]

    await Purge(database, [], [purge]).run()
    assert sizes == [1000, 1000, 500, 0]


@requirement("kit:idempotency")
async def test_a_running_call_keeps_its_key_for_longer_than_a_lease(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "LEASE", timedelta(seconds=0.5))
    monkeypatch.setattr(idempotency, "RENEWAL_SECONDS", 0.1)
    records, key = IdempotencyRecords(database), IdempotencyKey("alice", "/m", uuid.uuid4().hex)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> StoredReply:
        begun.set()
        await go_on.wait()
        return StoredReply(200, b"{}")

    first = asyncio.create_task(records.run(key, b"", slow))
    await begun.wait()
    row = "SELECT lease_until, created_at + interval '2 s' < now() FROM events.idempotency WHERE key = $1"

    async def outlived() -> bool:
        return (await database.fetch_one(row, key.key))[1]

    await wait_until(outlived, 10, "four leases to pass")
    with pytest.raises(RpcError) as busy:
        await records.run(key, b"", slow)
    assert busy.value.code is ErrorCode.ABORTED
    go_on.set()
    await first
