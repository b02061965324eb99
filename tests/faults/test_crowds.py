"""Many clients at once: a thousand that reconnect together, and thousands of idle streams."""

import asyncio
import resource
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Final
from urllib.parse import urlsplit

import pytest

from tests.bench.stream_readers import StreamReaders
from tests.chaos.faults import kill, until_ready
from tests.chaos.turns import MIDDLE, ObservedTurn, problems_of, script
from tests.faults.load import Load
from tests.requirements import requirement
from tests.support.platform import Client, Platform
from tests.support.retries import RECOVERY_SECONDS
from tests.support.sse import Fold, StreamClient
from tests.support.wait import wait_until

pytestmark = pytest.mark.long

RECONNECTING: Final = 1_000
TURNS: Final = 20
AT_ONCE: Final = 50
RETRY_SECONDS: Final = 0.5
"""A client whose connection is refused tries again, so all are back within a second of the edge."""
IDLE: Final = 5_000
MAX_KIB: Final = 300
"""Of memory per idle stream over all processes."""
SPARE_FILES: Final = 20
FILES: Final = 20_000
STREAMING: Final = ("edge", "edge-daprd", "llm-daprd", "llm")
"""The processes that a stream passes."""


@pytest.fixture(autouse=True)
def open_files() -> Iterator[None]:
    """Allows this process a file per stream."""
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))


@requirement("chaos:crowds", "events:resume", "events:gap-free")
async def test_a_thousand_clients_that_reconnect_at_once_get_the_rest_of_their_streams(
    platform: Platform, alice: Client
) -> None:
    gate = uuid.uuid4().hex
    async with _turns(platform, gate) as turns, Load.running(alice) as load:
        readers = [_reader(each) for each in islice(cycle(turns), RECONNECTING - len(turns))]
        reading = [asyncio.create_task(one.run(RECOVERY_SECONDS * 2)) for one in readers]
        try:
            await wait_until(lambda: all(_has_middle(one.fold) for one in readers), 60, "streams")
            opened = sum(one.connections for one in readers)
            await kill(platform, "edge")
            await until_ready(platform, "edge")
            await platform.release_gate(gate)
            folds = await asyncio.gather(*reading)
            ends = [await turn.ended() for turn in turns]
        finally:
            for each in reading:
                each.cancel()
    assert sum(one.connections for one in readers) >= opened + len(readers)
    raw = cycle(one.raw for one in ends)
    assert all(fold.raw == expected for fold, expected in zip(folds, raw, strict=False))
    assert await problems_of(turns) == []
    assert await load.find_problems() == []


@requirement("chaos:crowds")
@pytest.mark.timeout(600)
async def test_five_thousand_idle_streams_cost_bounded_memory_and_leave_no_files_open(
    platform: Platform, alice: Client
) -> None:
    gate = uuid.uuid4().hex
    async with _turns(platform, gate) as turns, Load.running(alice) as load:
        before = await asyncio.to_thread(_usage, platform)
        edge = urlsplit(platform.edge_url)
        assert edge.hostname
        assert edge.port
        readers = StreamReaders(edge.hostname, edge.port)
        try:
            await _open_idle(readers, turns)
            held = await asyncio.to_thread(_usage, platform)
        finally:
            readers.close()
        grown = {name: held[name].kib - before[name].kib for name in before}
        assert sum(grown.values()) / IDLE <= MAX_KIB, grown
        assert all(held[name].files - before[name].files >= 0 for name in STREAMING)

        async def are_closed() -> bool:
            now = await asyncio.to_thread(_usage, platform)
            return all(now[name].files <= before[name].files + SPARE_FILES for name in STREAMING)

        await wait_until(are_closed, RECOVERY_SECONDS, "files to be closed", every=1)
        await platform.release_gate(gate)
        await asyncio.gather(*(turn.ended() for turn in turns))
    assert readers.counts["lost"] == 0
    assert await load.find_problems() == []


async def _open_idle(readers: StreamReaders, turns: list[ObservedTurn]) -> None:
    following = cycle(turns)
    while len(readers.readers) < IDLE:
        added = [
            readers.add(
                urlsplit(turn.client.path("StreamEvents")).path, turn.client.headers(), turn.ref
            )
            for turn in islice(following, AT_ONCE)
        ]
        await wait_until(
            lambda added=added: all(each.first for each in added), 60, "streams", every=0.05
        )
    await wait_until(lambda: readers.open_count == IDLE, 60, "all streams to be open", every=0.2)


@dataclass(frozen=True, slots=True)
class _Usage:
    """Memory (proportional set size) and open files of a process with its children."""

    kib: float
    files: int


def _usage(platform: Platform) -> dict[str, _Usage]:
    found: dict[str, _Usage] = {}
    for name in STREAMING:
        family = platform.family(name)
        kib = sum(each.memory_full_info().pss for each in family) / 1024
        found[name] = _Usage(kib, sum(each.num_fds() for each in family))
    return found


def _has_middle(fold: Fold) -> bool:
    return len(fold.text.split()) >= MIDDLE


def _reader(turn: ObservedTurn) -> StreamClient:
    return turn.client.reader("StreamEvents", turn.ref, pause=RETRY_SECONDS)


@asynccontextmanager
async def _turns(platform: Platform, gate: str) -> AsyncIterator[list[ObservedTurn]]:
    """Turns of as many users, each held at the gate in the middle of its answer."""
    async with AsyncExitStack() as exits:
        clients = [
            await exits.enter_async_context(platform.client(f"crowd-{uuid.uuid4().hex[:8]}"))
            for _ in range(TURNS)
        ]
        attempts = script(gate=gate, gate_after=MIDDLE)
        turns = [await ObservedTurn.begin(each, attempts) for each in clients]
        try:
            await asyncio.gather(*(turn.shows(MIDDLE) for turn in turns))
            yield turns
        finally:
            for turn in turns:
                turn.abandon()
