"""Durable work on real stores: begin, recovery, deadline, cancellation."""

import asyncio
import signal
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from services.cli.stack import Stack
from services.kit.errors import ErrorCode, RpcError
from services.kit.eventlog import (
    DurableWork,
    Engine,
    EventLog,
    HostLease,
    NewEvent,
    NewStream,
    RetryLater,
    Segment,
    StreamHead,
    TerminalEvents,
)
from services.kit.eventlog.host import FROZEN_SECONDS
from services.kit.storage.db import Database
from services.kit.storage.wake_ups import WakeUps
from tests.requirements import requirement
from tests.support.durable_host import KIND
from tests.support.wait import wait_until

DONE = "run.completed"
ENDINGS = TerminalEvents(DONE, "run.failed")


class Recorded:
    """A kind whose work ends at once or by `play`; records its calls."""

    name = KIND

    def __init__(self) -> None:
        self.attempts: Counter[str] = Counter()
        self.settled: list[Any] = []
        self.play: Callable[[Segment], Any] | None = None
        self.refuse_settling = False

    async def run(self, segment: Segment) -> None:
        self.attempts[segment.stream_id] += 1
        if self.play is not None:
            await self.play(segment)
        await segment.finish(DONE, {"attempt": segment.number}, owed={"of": segment.stream_id})

    async def recover(self, head: StreamHead) -> bool:
        return True

    async def settle(self, stream_id: str, owed: Any) -> None:
        if self.refuse_settling:
            raise RpcError(ErrorCode.UNAVAILABLE, "not now")
        self.settled.append(owed)


class Host:
    """The engine of one simulated process."""

    def __init__(self, engine: Engine, kind: Recorded, lease: HostLease) -> None:
        self.engine, self.kind, self.lease = engine, kind, lease


@pytest.fixture
async def database(database: Database) -> AsyncIterator[Database]:
    yield database
    await database.fetch("DELETE FROM events.streams WHERE kind = $1", KIND)


@pytest.fixture
async def host(database: Database, database_url: str, servers: Stack) -> AsyncIterator[Any]:
    """Opens hosts with stable leases."""
    async with AsyncExitStack() as stack:

        async def make() -> Host:
            wake_ups, lease = WakeUps(servers.url("valkey")), HostLease(database_url)
            wake_ups.start()
            stack.push_async_callback(wake_ups.close)
            await lease.start()
            stack.push_async_callback(lease.close)
            engine = Engine(database, EventLog(database, wake_ups, lease.host_id), wake_ups, lease)
            kind = Recorded()
            engine.host(kind)
            await engine.start()
            stack.push_async_callback(engine.close, timedelta(seconds=1))
            await wait_until(lambda: lease.is_stable, 20, "the lease to be held")
            return Host(engine, kind, lease)

        yield make


def a_stream(**fields: Any) -> NewStream:
    return NewStream(uuid.uuid4().hex, KIND, "alice", "s", **fields)


async def ended(host: Host, stream_id: str) -> StreamHead | None:
    head = await host.engine.log.head(stream_id)
    return head if head and head.closed_at else None


async def abandoned(
    servers: Stack, database_url: str, ids: list[str]
) -> asyncio.subprocess.Process:
    """A separate process that works on these streams."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.support.durable_host",
        database_url,
        servers.url("valkey"),
        ",".join(ids),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    begun = {(await process.stdout.readline()).decode().strip() for _ in ids}
    assert begun == set(ids)
    return process


@requirement("engine:recovery")
async def test_work_of_a_killed_process_continues_in_another_and_is_begun_once(
    host: Any, servers: Stack, database_url: str
) -> None:
    hosts = [await host(), await host()]
    ids = [uuid.uuid4().hex for _ in range(50)]
    process = await abandoned(servers, database_url, ids)
    process.kill()
    await process.wait()
    for stream_id in ids:
        await wait_until(lambda s=stream_id: ended(hosts[0], s), 20, f"{stream_id} to end")
    attempts = hosts[0].kind.attempts + hosts[1].kind.attempts
    assert attempts == Counter(ids)
    for stream_id in ids[:5]:
        events = await hosts[0].engine.log.read(stream_id)
        assert [(event.seq, event.attempt) for event in events] == [(1, 1), (2, 2)]


@requirement("engine:no-false-takeover")
async def test_work_of_a_living_process_is_not_taken_although_its_heartbeat_is_late(
    host: Any, servers: Stack, database: Database, database_url: str
) -> None:
    other = await host()
    stream_id = uuid.uuid4().hex
    process = await abandoned(servers, database_url, [stream_id])
    head = await other.engine.log.head(stream_id)
    assert head is not None
    # Its heartbeat looks 10 s old to the next ticks, but its session holds the lock.
    late = "UPDATE events.hosts SET beat_at = now() - interval '10 s' WHERE id = $1"
    for _ in range(40):
        await database.fetch(late, head.host)
        await other.engine._recover()
    assert other.kind.attempts[stream_id] == 0
    process.kill()
    await process.wait()
    await wait_until(lambda: ended(other, stream_id), 20, "the killed one's work to end")


@requirement("engine:recovery")
async def test_work_of_a_frozen_process_is_taken_over(
    host: Any, servers: Stack, database: Database, database_url: str
) -> None:
    other = await host()
    stream_id = uuid.uuid4().hex
    process = await abandoned(servers, database_url, [stream_id])
    head = await other.engine.log.head(stream_id)
    assert head is not None
    process.send_signal(signal.SIGSTOP)
    # Its session holds the lock, and its last heartbeat is as old as that of a frozen process.
    frozen = "UPDATE events.hosts SET beat_at = beat_at - make_interval(secs => $2) WHERE id = $1"
    await database.fetch(frozen, head.host, FROZEN_SECONDS)
    try:
        await wait_until(lambda: ended(other, stream_id), 30, "the frozen one's work to end")
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        await process.wait()


async def test_a_host_that_lost_a_stream_cancels_its_segment(host: Any, database: Database) -> None:
    here = await host()
    stopped = asyncio.Event()

    async def silent(segment: Segment) -> None:
        if segment.number == 1:
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()

    here.kind.play = silent
    segment = await here.engine.admit(a_stream(), [])
    here.engine.begin(segment)
    # As another host does that declared this one dead.
    take = "UPDATE events.streams SET host = 'elsewhere', attempt = 2 WHERE id = $1"
    await database.fetch(take, segment.stream_id)
    await asyncio.wait_for(stopped.wait(), 20)


@requirement("engine:deadline")
async def test_work_past_its_deadline_is_ended_on_any_host(
    host: Any, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.kit.eventlog.engine.EXPIRY_GRACE_SECONDS", 0.1)
    here = await host()

    async def stuck(segment: Segment) -> None:
        if segment.number == 1:
            await asyncio.Event().wait()

    here.kind.play = stuck
    ends = datetime.now(UTC) + timedelta(seconds=0.5)
    segment = await here.engine.admit(a_stream(deadline=ends), [])
    here.engine.begin(segment)
    await wait_until(lambda: ended(here, segment.stream_id), 20, "the deadline to end it")


async def test_admitted_work_that_was_never_begun_is_released_by_its_host(host: Any) -> None:
    here = await host()
    stream = a_stream()
    assert await here.engine.log.open_with_attempt(
        stream, []
    )  # as after a commit with a lost response
    await wait_until(lambda: ended(here, stream.stream_id), 20, "it to be reconciled")


@requirement("turns:cancel")
@pytest.mark.parametrize("through_other", [False, True])
async def test_a_cancel_reaches_the_writer_in_any_process(host: Any, through_other: bool) -> None:
    hosts = [await host(), await host()]
    stopped = asyncio.Event()

    async def until_stopped(segment: Segment) -> None:
        await segment.stop.wait()
        stopped.set()

    hosts[0].kind.play = until_stopped
    segment = await hosts[0].engine.admit(a_stream(), [])
    hosts[0].engine.begin(segment)
    assert await hosts[through_other].engine.cancel(segment.stream_id)
    await asyncio.wait_for(stopped.wait(), 10)
    await wait_until(lambda: ended(hosts[0], segment.stream_id), 10, "it to end")
    assert not await hosts[0].engine.cancel(segment.stream_id)


async def test_work_is_retried_when_due_and_a_cancel_does_not_wait(
    host: Any,
) -> None:
    here = await host()

    async def fails_first(segment: Segment) -> None:
        if segment.number == 1:
            raise RetryLater(timedelta(seconds=0.2 if segment.attempt.stream.subject else 3600))

    here.kind.play = fails_first
    soon = await here.engine.admit(a_stream(), [])
    late = await here.engine.admit(NewStream(uuid.uuid4().hex, KIND, "alice", ""), [])
    for segment in (soon, late):
        await here.engine.begin(segment)
    await wait_until(lambda: ended(here, soon.stream_id), 10, "the second attempt")
    assert await ended(here, late.stream_id) is None
    assert await here.engine.cancel(late.stream_id)
    await wait_until(lambda: ended(here, late.stream_id), 10, "the cancelled one to end")


async def test_an_owed_effect_is_retried_until_settled(host: Any, database: Database) -> None:
    here = await host()
    here.kind.refuse_settling = True
    segment = await here.engine.admit(a_stream(), [])
    await here.engine.begin(segment)
    owed = "SELECT owed IS NOT NULL FROM events.streams WHERE id = $1"
    assert (await database.fetch_one(owed, segment.stream_id))[0]
    here.kind.refuse_settling = False
    await database.fetch(
        "UPDATE events.streams SET due_at = now() WHERE id = $1", segment.stream_id
    )

    async def settled() -> bool:
        return not (await database.fetch_one(owed, segment.stream_id))[0]

    await wait_until(settled, 10, "it to be settled")
    assert here.kind.settled == [{"of": segment.stream_id}]


async def test_a_closed_host_releases_its_work_at_once(host: Any) -> None:
    leaving, staying = await host(), await host()

    async def long(segment: Segment) -> None:
        if segment.number == 1:
            await asyncio.Event().wait()

    leaving.kind.play = long
    segment = await leaving.engine.admit(a_stream(), [])
    leaving.engine.begin(segment)
    await leaving.engine.close(timedelta())
    await wait_until(lambda: ended(staying, segment.stream_id), 10, "the other to go on")
    assert staying.kind.attempts[segment.stream_id] == 1


class Value(BaseModel):
    """A number."""

    value: int


@requirement("engine:durable-steps")
async def test_a_durable_function_returns_its_result_and_a_repeat_gets_the_same(host: Any) -> None:
    here = await host()
    effects: list[int] = []

    async def add(last: Value) -> tuple[Value, list[NewEvent]]:
        effects.append(last.value)
        if effects == [1, 2]:
            raise RpcError(ErrorCode.UNAVAILABLE, "the second step fails once")
        return Value(value=last.value + 1), []

    async def steps(segment: Segment, given: Value) -> Value:
        result = given
        for number in range(3):
            result = await segment.step(f"{number}", Value, lambda last=result: add(last))
        return result

    work = DurableWork(here.engine, "test-steps", (Value, Value), steps, ENDINGS)
    name = uuid.uuid4().hex
    assert await work.call(name, Value(value=1), owner="alice") == Value(value=4)
    assert effects == [1, 2, 2, 3], "the first step was checkpointed"
    assert await work.call(name, Value(value=1), owner="alice") == Value(value=4)
    assert len(effects) == 4


async def test_a_failed_durable_function_raises_to_every_caller(host: Any) -> None:
    here = await host()

    async def steps(segment: Segment, given: Value) -> Value:
        raise RpcError(ErrorCode.FAILED_PRECONDITION, "never")

    work = DurableWork(here.engine, "test-failing", (Value, Value), steps, ENDINGS)
    name = uuid.uuid4().hex
    for _ in range(2):
        with pytest.raises(RpcError) as failed:
            await work.call(name, Value(value=1), owner="alice")
        assert failed.value.code is ErrorCode.FAILED_PRECONDITION
