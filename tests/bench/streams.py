"""W6: many slow turns with many readers, while another user appends."""

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import psutil

from tests.bench.figures import Run, emit
from tests.bench.stream_readers import Reader, StreamReaders
from tests.support.model_server import script_text
from tests.support.platform import Client, Platform, idempotency_key
from tests.support.retries import until_ok
from tests.support.wait import wait_until

WORD_SECONDS: Final = 15
WORDS: Final = 60
AT_ONCE: Final = 50
TURNS_PER_USER: Final = 20
WARMING: Final = 10
PACE: Final = 0.05
"""Seconds between two appends of the other user."""
TEXT: Final = "x" * 400


@dataclass(frozen=True, slots=True)
class Sizes:
    """Number of turns and readers, and the duration of the measurement."""

    turns: int = 300
    readers: int = 900
    seconds: float = 60


async def measure(platform: Platform, sizes: Sizes) -> None:
    """Print takeovers, appends of another user with and without load, cores, memory per stream, and lost streams."""
    async with platform.client("bench-other") as other:
        conversation = await other.conversation()
        await _appends(other, conversation, 5)
        for _ in range(WARMING):  # memory of the first turns is not counted per stream
            await _until_ok(other, "SendMessage", conversationId=conversation, text="warm?")
        quiet = await _appends(other, conversation, sizes.seconds / 2)
        memory = await asyncio.to_thread(_memory, platform)
        tag = uuid.uuid4().hex
        async with _opened(platform, sizes, tag) as (readers, turns):
            cores = await _cores(platform, readers, sizes.seconds)
            held = await asyncio.to_thread(_memory, platform)
            loaded = await _appends(other, conversation, sizes.seconds / 2)
            open_count = readers.open_count
            calls = len(await platform.model_calls(tag))
    fields = {"turns": sizes.turns, "readers": sizes.readers}
    emit(
        "W6 living turns taken over",
        **fields,
        restarted=sum(bool(turn.restarts) for turn in turns),
        model_calls_beyond_one=calls - len(turns),
        events_per_s=cores.pop("events per s"),
    )
    emit(
        "W6 another user's append",
        **fields,
        **loaded.fields(),
        quiet_p50_ms=quiet.fields()["p50_ms"],
        quiet_p99_ms=quiet.fields()["p99_ms"],
    )
    beside = sum(value for name, value in cores.items() if name not in ("client", "model"))
    emit("W6 cores", **fields, platform=round(beside, 2), by_process=cores)
    grown = {name: held[name] - memory.get(name, 0.0) for name in held}
    emit(
        "W6 memory per stream",
        **fields,
        kib=round(sum(grown.values()) * 1024 / sizes.readers, 1),
        grown_mib=round(sum(grown.values()), 1),
        before_mib=round(sum(memory.values()), 1),
        by_process={name: round(value, 1) for name, value in grown.items()},
    )
    emit(
        "W6 streams",
        **fields,
        standing=open_count,
        lost=readers.counts["lost"],
        unhealthy=platform.count_unhealthy(),
        **{k: v for k, v in readers.counts.items() if k not in ("lost", "events")},
    )


async def _appends(client: Client, conversation: str, seconds: float) -> Run:
    """Appends at a steady rate, each timed from its due time."""
    latencies: list[float] = []
    began = time.perf_counter()
    for number in range(int(seconds / PACE)):
        due = began + number * PACE
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        if time.perf_counter() > began + seconds:
            break
        await _until_ok(client, "AppendMessage", conversationId=conversation, text=TEXT)
        latencies.append(time.perf_counter() - due)
    return Run(latencies, time.perf_counter() - began)


@asynccontextmanager
async def _opened(
    platform: Platform, sizes: Sizes, tag: str
) -> AsyncIterator[tuple[StreamReaders, list[Reader]]]:
    """Open turns with their readers, including the one that began each turn."""
    edge = urlsplit(platform.edge_url)
    assert edge.hostname is not None
    assert edge.port is not None
    readers = StreamReaders(edge.hostname, edge.port)
    async with aiohttp.ClientSession() as session:
        clients = [
            Client(platform.edge_url, await _token(platform, f"bench-{number}"), session)
            for number in range(-(-sizes.turns // TURNS_PER_USER))
        ]
        try:
            turns = await _begin_turns(readers, clients, sizes.turns, tag)
            await _add_readers(readers, turns, sizes.readers - sizes.turns)
            yield readers, [turn.reader for turn in turns]
        finally:
            readers.close()


@dataclass(frozen=True, slots=True)
class _Turn:
    client: Client
    conversation: str
    reader: Reader


async def _begin_turns(
    readers: StreamReaders, clients: list[Client], count: int, tag: str
) -> list[_Turn]:
    began, turns = time.perf_counter(), list[_Turn]()
    owners = cycle(clients)
    while len(turns) < count:
        some = list(islice(owners, min(AT_ONCE, count - len(turns))))
        made = await asyncio.gather(*(_until_ok(each, "CreateConversation") for each in some))
        for client, conversation in zip(some, made, strict=True):
            named = conversation["conversationId"]
            headers = client.headers(idempotency_key())
            # Random delays, so that concurrent turns do not emit their words at the same time.
            pause = int(WORD_SECONDS * 1000 * random.uniform(0.9, 1.1))
            text = script_text(tokens=WORDS, delay_ms=pause)
            body = {"conversationId": named, "text": f"{text} {tag}"}
            reader = readers.add(_path(client, "StreamMessage"), headers, body)
            turns.append(_Turn(client, named, reader))
        await wait_until(
            lambda: all(turn.reader.first for turn in turns), 300, "turns to begin", every=0.1
        )
    emit("W6 ramp", turns=count, seconds=round(time.perf_counter() - began, 1))
    return turns


async def _add_readers(readers: StreamReaders, turns: list[_Turn], count: int) -> None:
    began, added = time.perf_counter(), list[Reader]()
    following = cycle(turns)
    while len(added) < count:
        for turn in islice(following, min(AT_ONCE, count - len(added))):
            body = {
                "conversationId": turn.conversation,
                "turnId": turn.reader.first["data"]["turnId"],
            }
            path = _path(turn.client, "StreamEvents")
            added.append(readers.add(path, turn.client.headers(), body))
        await wait_until(
            lambda: all(each.first for each in added), 300, "readers to be served", every=0.1
        )
    emit("W6 ramp", readers=count, seconds=round(time.perf_counter() - began, 1))


async def _until_ok(client: Client, method: str, **body: Any) -> Any:
    return await until_ok(client, method, idempotency_key(), seconds=120, every=0.25, **body)


async def _token(platform: Platform, user: str) -> str:
    return await asyncio.to_thread(platform.token, user)


def _path(client: Client, method: str) -> str:
    return urlsplit(client.path(method)).path


# --- what the processes use ---


def _families(platform: Platform) -> dict[str, list[psutil.Process]]:
    return {name: platform.family(name) for name in platform.stack.names}


def _memory(platform: Platform) -> dict[str, float]:
    """MiB of each process with its children, as proportional set size."""
    found: dict[str, float] = {}
    for name, family in _families(platform).items():
        found[name] = 0.0
        for process in family:
            try:
                found[name] += process.memory_full_info().pss / 2**20
            except psutil.NoSuchProcess:
                continue
    return found


async def _cores(platform: Platform, readers: StreamReaders, seconds: float) -> dict[str, float]:
    """Cores used by each process, and events read per second."""
    families = _families(platform)
    families["model"] = [psutil.Process(platform.model_process)]
    families["client"] = [psutil.Process()]
    began, events = time.perf_counter(), readers.counts["events"]
    before = {name: _cpu(family) for name, family in families.items()}
    await asyncio.sleep(seconds)
    elapsed = time.perf_counter() - began
    used = {name: (_cpu(family) - before[name]) / elapsed for name, family in families.items()}
    cores = {name: round(value, 3) for name, value in used.items()}
    return {**cores, "events per s": round((readers.counts["events"] - events) / elapsed, 1)}


def _cpu(family: list[psutil.Process]) -> float:
    total = 0.0
    for process in family:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total
