"""The event log on a real Postgres and a real Valkey."""

import asyncio
import signal
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, tzinfo

import asyncpg
import pytest

from services.cli.stack import Stack
from services.kit.eventlog import (
    EventLog,
    NewEvent,
    NewStream,
    StaleAttempt,
    StoredEvent,
)
from services.kit.eventlog import log as log_module
from services.kit.storage.db import Database
from services.kit.storage.wake_ups import WakeUps
from tests.requirements import requirement
from tests.support.wait import wait_until

END = NewEvent("run.completed", {}, terminal=True)
PIECE = NewEvent("text.delta", {"text": "x"})


@pytest.fixture
async def logs(database: Database, servers: Stack) -> AsyncIterator[list[EventLog]]:
    """The event logs of two processes."""
    wake_ups = [WakeUps(servers.url("valkey")) for _ in range(2)]
    for each in wake_ups:
        each.start()
    yield [EventLog(database, each, f"host-{place}") for place, each in enumerate(wake_ups)]
    for each in wake_ups:
        await each.close()


@pytest.fixture
def log(logs: list[EventLog]) -> EventLog:
    return logs[0]


def a_stream() -> NewStream:
    return NewStream(uuid.uuid4().hex, "test", "alice", "s")


async def begun(log: EventLog) -> str:
    stream = a_stream()
    assert await log.open_with_attempt(stream, [])
    return stream.stream_id


async def followed(log: EventLog, stream_id: str, after: int = 0) -> list[tuple[int, str]]:
    """The events that a reader gets up to the terminal one, as seq and bytes."""
    seen: list[tuple[int, str]] = []
    async for batch in log.follow(stream_id, after, idle_seconds=1):
        seen += [(event.seq, f"{event.data} {event.created_at}") for event in batch]
        await log.poll()
        if batch and batch[-1].type == END.type:
            return seen
    return seen


@requirement("events:gap-free")
async def test_concurrent_appends_leave_no_gap_and_no_duplicate(log: EventLog) -> None:
    stream_id = await begun(log)
    await asyncio.gather(*(log.append(stream_id, 1, [PIECE] * 3) for _ in range(20)))
    assert [event.seq for event in await log.read(stream_id)] == list(range(1, 61))


@requirement("events:gap-free", "events:outlive-restart")
async def test_appends_survive_kills_of_postgres_and_are_written_once(
    log: EventLog, servers: Stack
) -> None:
    streams = [await begun(log) for _ in range(8)]
    stop, written = asyncio.Event(), dict.fromkeys(streams, 0)

    async def write(stream_id: str) -> None:
        while not stop.is_set():
            number = written[stream_id] + 1
            kept = (f"step {number}", {}) if number % 3 == 0 else None
            last, _ = await log.append(
                stream_id, 1, [NewEvent("custom", {"n": number})], checkpoint=kept
            )
            assert last == number
            written[stream_id] = number

    writers = [asyncio.create_task(write(each)) for each in streams]
    for _ in range(3):
        before = dict(written)
        await wait_until(lambda b=before: all(written[s] > b[s] + 20 for s in streams), 30, "news")
        pid = await asyncio.to_thread(servers.kill, "postgres", signal.SIGKILL)
        await asyncio.to_thread(servers.wait_exited, "postgres", pid)
    before = dict(written)
    await wait_until(lambda: all(written[s] > before[s] for s in streams), 30, "appends again")
    stop.set()
    await asyncio.gather(*writers)
    for stream_id in streams:
        found = [event for page in await pages(log, stream_id) for event in page]
        assert [(event.seq, event.data) for event in found] == [
            (number, f'{{"n":{number}}}') for number in range(1, written[stream_id] + 1)
        ]


async def pages(log: EventLog, stream_id: str) -> list[list[StoredEvent]]:
    """All events, by several reads."""
    found: list[list[StoredEvent]] = []
    while page := await log.read(stream_id, found[-1][-1].seq if found else 0):
        found.append(page)
    return found


@requirement("events:gap-free")
async def test_concurrent_appends_of_streams_share_commits_only(log: EventLog) -> None:
    streams = [await begun(log) for _ in range(40)]

    async def write(number: int) -> None:
        for piece in range(5):
            event = NewEvent("custom", {"of": number, "n": piece})
            await log.append(streams[number], 1, [event], checkpoint=(f"{piece}", {"of": number}))

    await asyncio.gather(*map(write, range(40)))
    for number, stream_id in enumerate(streams):
        events = await log.read(stream_id)
        assert [event.seq for event in events] == [1, 2, 3, 4, 5]
        assert {event.data for event in events} == {
            f'{{"of":{number},"n":{piece}}}' for piece in range(5)
        }
        await log.release(stream_id, 1)
        attempt = await log.begin_attempt(stream_id)
        assert attempt is not None
        assert attempt.checkpoints == {f"{piece}": {"of": number} for piece in range(5)}


async def test_a_refused_append_does_not_affect_the_others(log: EventLog) -> None:
    good, bad = await begun(log), await begun(log)
    await log.append(good, 1, [PIECE], checkpoint=("once", {}))
    others = [await begun(log) for _ in range(5)]
    outcomes = await asyncio.gather(
        *(log.append(each, 1, [PIECE]) for each in others),
        log.append(good, 1, [PIECE], checkpoint=("once", {})),  # the step exists
        log.append(bad, 7, [PIECE]),
        log.append(bad, 1, [PIECE]),
        return_exceptions=True,
    )
    assert [type(one) for one in outcomes[:5]] == [tuple] * 5
    assert isinstance(outcomes[5], Exception)
    assert isinstance(outcomes[6], StaleAttempt)
    assert outcomes[7] == (1, False)
    assert [event.seq for event in await log.read(good)] == [1]


@requirement("turns:fenced")
async def test_an_older_attempt_cannot_write(logs: list[EventLog]) -> None:
    one, other = logs
    stream_id = await begun(one)
    assert await other.begin_attempt(stream_id) is None, "its host has not let go of it"
    await one.release(stream_id, 1)
    newer = await other.begin_attempt(stream_id)
    assert newer is not None
    assert newer.number == 2
    with pytest.raises(StaleAttempt):
        await one.append(stream_id, 1, [NewEvent("custom")])
    assert await one.read(stream_id) == []


async def test_nothing_follows_the_terminal_event(log: EventLog) -> None:
    stream_id = await begun(log)
    await log.append(stream_id, 1, [END])
    with pytest.raises(StaleAttempt):
        await log.append(stream_id, 1, [END])
    assert not await log.close_stream(stream_id, END.type, END.data)
    assert await log.begin_attempt(stream_id) is None
    head = await log.wait_until_free(stream_id)
    assert head is not None
    assert head.closed_at is not None
    assert len(await log.read(stream_id)) == 1


@requirement("kit:segments")
async def test_a_checkpoint_commits_with_its_events_and_survives_the_attempt(log: EventLog) -> None:
    stream_id = await begun(log)
    await log.append(stream_id, 1, [NewEvent("usage", {"n": 1})], checkpoint=("step", {"a": 1}))
    await log.release(stream_id, 1)
    again = await log.begin_attempt(stream_id)
    assert again is not None
    assert (again.number, again.checkpoints, again.checkpoint_seq) == (2, {"step": {"a": 1}}, 1)


@requirement("kit:segments")
async def test_an_attempt_sees_the_checkpoint_that_was_committed_while_it_waited_for_the_row(
    log: EventLog, database_url: str
) -> None:
    stream_id = await begun(log)
    await log.release(stream_id, 1)
    writer = await asyncpg.connect(database_url)
    transaction = writer.transaction()
    await transaction.start()
    await writer.execute(
        "UPDATE events.streams SET last_seq = last_seq + 1 WHERE id = $1", stream_id
    )
    await writer.execute(
        "INSERT INTO events.checkpoints (stream_id, step, seq, attempt, value) "
        "VALUES ($1, 'step', 1, 1, '{\"a\":1}')",
        stream_id,
    )
    beginning = asyncio.create_task(log.begin_attempt(stream_id))
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    await wait_until(lambda: writer.fetchval(waits), 10, "the attempt to wait for the row")
    await transaction.commit()
    await writer.close()
    attempt = await beginning
    assert attempt is not None
    assert attempt.checkpoints == {"step": {"a": 1}}


async def test_a_released_stream_is_free_at_once_and_a_held_one_is_not(
    logs: list[EventLog],
) -> None:
    stream_id = await begun(logs[0])
    waiting = asyncio.create_task(logs[1].wait_until_free(stream_id))
    await logs[0].release(stream_id, 1)
    head = await asyncio.wait_for(waiting, 5)
    assert head is not None
    assert head.host is None
    assert await logs[1].wait_until_free("no such stream") is None


async def test_readers_get_the_same_bytes_in_the_writers_process_in_another_and_from_the_table(
    logs: list[EventLog],
) -> None:
    stream_id = await begun(logs[0])
    readers = [asyncio.create_task(followed(log, stream_id)) for log in logs for _ in range(2)]
    for number in range(50):
        await logs[0].append(stream_id, 1, [NewEvent("custom", {"é": number})])
    await logs[0].append(stream_id, 1, [END])
    first, *others = await asyncio.wait_for(asyncio.gather(*readers), 20)
    assert [seq for seq, _ in first] == list(range(1, 52))
    late = await followed(logs[0], stream_id, after=20)
    assert all(other == first for other in others)
    assert late == first[20:]


async def test_a_reader_in_the_writers_process_does_not_read_the_table(
    log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream_id = await begun(log)
    reads: list[str] = []
    read = log.read

    async def counted(stream_id: str, after: int = 0, limit: int = 500):
        reads.append(stream_id)
        return await read(stream_id, after, limit)

    monkeypatch.setattr(log, "read", counted)
    reader = asyncio.create_task(followed(log, stream_id))
    for _ in range(10):
        await log.append(stream_id, 1, [PIECE])
    await log.append(stream_id, 1, [END])
    assert [seq for seq, _ in await asyncio.wait_for(reader, 5)] == list(range(1, 12))
    assert reads == []


async def test_a_reader_continues_when_another_process_takes_over_the_stream(
    logs: list[EventLog],
) -> None:
    stream_id = await begun(logs[0])
    reader = asyncio.create_task(followed(logs[0], stream_id))
    await logs[0].append(stream_id, 1, [PIECE])
    await logs[0].release(stream_id, 1)
    assert await logs[1].begin_attempt(stream_id)
    await logs[1].append(stream_id, 2, [PIECE])
    await logs[1].append(stream_id, 2, [END])
    assert [seq for seq, _ in await asyncio.wait_for(reader, 10)] == [1, 2, 3]


async def test_an_unused_stream_is_discarded_and_a_used_one_is_not(log: EventLog) -> None:
    unused, used = a_stream(), a_stream()
    for stream in (unused, used):
        assert await log.open_with_attempt(stream, [NewEvent("run.started")])
        assert await log.open_with_attempt(stream, []) is None
    await log.append(used.stream_id, 1, [PIECE])
    for stream in (unused, used):
        await log.discard(stream.stream_id, 1)
    assert await log.head(unused.stream_id) is None
    assert await log.read(unused.stream_id) == []
    assert len(await log.read(used.stream_id)) == 2


async def test_the_append_of_a_cancelled_caller_is_committed(log: EventLog) -> None:
    stream_id = await begun(log)
    append = asyncio.create_task(log.append(stream_id, 1, [NewEvent("custom")] * 2))
    await asyncio.sleep(0)
    append.cancel()
    await asyncio.gather(append, return_exceptions=True)
    await log.append(stream_id, 1, [END])
    assert [event.seq for event in await log.read(stream_id)] in ([1], [1, 2, 3])


async def test_a_stream_released_for_later_is_not_due_yet(log: EventLog) -> None:
    stream_id = await begun(log)
    await log.release(stream_id, 1, timedelta(hours=1))
    assert await log.begin_attempt(stream_id) is not None, "who knows of it need not wait"


class Behind(datetime):
    """A clock that is ten minutes behind that of Postgres."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:
        return datetime.now(tz) - timedelta(minutes=10)


@requirement("engine:deadline")
async def test_a_deadline_is_kept_by_the_clock_of_postgres(
    logs: list[EventLog], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "datetime", Behind)
    first, second = logs
    ends = Behind.now(UTC) + timedelta(minutes=5)
    stream = NewStream(uuid.uuid4().hex, "test", "alice", "s", deadline=ends)
    assert await first.open_with_attempt(stream, [])
    statement = "SELECT deadline - now() FROM events.streams WHERE id = $1"
    row = await database.fetch_one(statement, stream.stream_id)
    assert row is not None
    assert timedelta(minutes=4) < row[0] <= timedelta(minutes=5)
    release = "UPDATE events.streams SET host = NULL WHERE id = $1"
    await database.fetch(release, stream.stream_id)
    again = await second.begin_attempt(stream.stream_id)
    assert again is not None
    assert again.stream.deadline is not None
    assert abs(again.stream.deadline - ends) < timedelta(seconds=30)
