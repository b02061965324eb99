"""One look of an engine at the table, without its clock: what it takes over, and what it leaves."""

import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from services.kit.eventlog import Engine, EventLog, HostLease, NewEvent, NewStream, Segment
from services.kit.eventlog.records import StreamHead
from services.kit.storage.db import Database
from services.kit.storage.wake_ups import WakeUps
from tests.requirements import requirement


class Attempts:
    """A kind of its own, whose work ends at once; records its attempts."""

    def __init__(self) -> None:
        self.name = f"recovery-{uuid.uuid4().hex}"
        self.seen: list[tuple[str, int]] = []

    async def run(self, segment: Segment) -> None:
        self.seen.append((segment.stream_id, segment.number))
        await segment.finish("run.completed", {})

    async def recover(self, head: StreamHead) -> bool:
        return head.closed_at is None

    async def settle(self, stream_id: str, owed: Any) -> None:
        raise NotImplementedError


@pytest.fixture
def kind() -> Attempts:
    return Attempts()


@pytest.fixture
async def engine(
    database: Database, database_url: str, wake_ups: WakeUps, kind: Attempts
) -> AsyncIterator[Engine]:
    """An engine that looks only when it is told to."""
    log = EventLog(database, wake_ups, f"host-{uuid.uuid4().hex}")
    engine = Engine(database, log, wake_ups, HostLease(database_url))
    engine.host(kind)
    yield engine
    await database.fetch("DELETE FROM events.streams WHERE kind = $1", kind.name)


@requirement("engine:recovery")
async def test_released_work_gets_one_more_attempt_and_only_when_it_is_due(
    engine: Engine, kind: Attempts
) -> None:
    due, later, held = (NewStream(uuid.uuid4().hex, kind.name, "alice", "s") for _ in range(3))
    for stream in (due, later, held):
        assert await engine.log.open_with_attempt(stream, [NewEvent("turn.started", {})])
    await engine.log.release(due.stream_id, 1)
    await engine.log.release(later.stream_id, 1, timedelta(minutes=5))
    await engine._recover()
    await engine._recover()
    await engine.close(timedelta(seconds=5))
    assert kind.seen == [(due.stream_id, 2)]
