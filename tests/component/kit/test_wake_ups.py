"""Wake-ups on a real Valkey, across its restart and absence."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from services.cli.stack import Stack
from services.kit.eventlog import EventLog, NewEvent, NewStream, migrate_event_log
from services.kit.storage.db import Database
from services.kit.storage.wake_ups import WakeUps
from tests.support.wait import wait_until

DEAD = "redis://127.0.0.1:1/0"


@pytest.fixture
async def wake_ups(servers: Stack) -> AsyncIterator[Callable[[], WakeUps]]:
    """Opens the wake-ups of several processes."""
    opened: list[WakeUps] = []

    def make() -> WakeUps:
        opened.append(WakeUps(servers.url("valkey")))
        return opened[-1]

    yield make
    for each in opened:
        await each.close()


@pytest.fixture
def valkey_down(servers: Stack) -> Iterator[Callable[[], None]]:
    """Halt Valkey; the returned call restarts it."""
    servers.halt("valkey")
    yield lambda: servers.restart("valkey")
    if not servers.is_ready("valkey"):
        servers.restart("valkey")


async def wakes(sender: WakeUps, name: str, event: asyncio.Event) -> None:
    """Send wake-ups until one arrives."""
    event.clear()
    async with asyncio.timeout(10):
        while not event.is_set():
            sender.wake(name)
            try:
                await asyncio.wait_for(event.wait(), 0.2)
            except TimeoutError:
                continue


async def test_a_wake_up_crosses_processes(wake_ups: Callable[[], WakeUps]) -> None:
    reader, writer = wake_ups(), wake_ups()
    reader.start()
    async with reader.listen("a") as event:
        await wakes(writer, "a", event)


async def test_a_listener_is_woken_again_after_a_restart(
    servers: Stack, wake_ups: Callable[[], WakeUps]
) -> None:
    reader, writer = wake_ups(), wake_ups()
    reader.start()
    async with reader.listen("a") as event:
        await wakes(writer, "a", event)
        await asyncio.to_thread(servers.restart, "valkey")
        await wakes(writer, "a", event)


async def test_a_listener_started_without_valkey_is_woken_when_valkey_returns(
    wake_ups: Callable[[], WakeUps], valkey_down: Callable[[], None]
) -> None:
    reader, writer = wake_ups(), wake_ups()
    reader.start()
    async with reader.listen("a") as event:
        await asyncio.to_thread(valkey_down)
        await wakes(writer, "a", event)


async def test_without_valkey_a_reader_follows_by_polling(database_url: str) -> None:
    database, reader, writer = Database(database_url), WakeUps(DEAD), WakeUps(DEAD)
    await migrate_event_log(database)
    reader.start()
    log, stream_id = EventLog(database, writer, "writer"), uuid.uuid4().hex
    remote = EventLog(database, reader, "reader")
    await log.open_with_attempt(NewStream(stream_id, "test", "alice", "s"), [])
    seen: list[int] = []

    async def follow() -> None:
        async for batch in remote.follow(stream_id):
            seen.extend(event.seq for event in batch)
            if len(seen) == 2:
                return

    async def polled() -> bool:
        await remote.poll()
        return seen == [1]

    following = asyncio.create_task(follow())
    await log.append(stream_id, 1, [NewEvent("custom")])
    await wait_until(polled)
    await log.append(stream_id, 1, [NewEvent("run.completed", {}, terminal=True)])
    await remote.poll()
    await asyncio.wait_for(following, 10)
    assert seen == [1, 2]
    for each in (reader, writer, database):
        await each.close()
