"""The ends of a live stream: terminal event, revocation, maximum duration, shutdown."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import cast

import pytest
from fastapi import FastAPI, Request

from services.kit.access.identity import TrustedApps
from services.kit.errors import ErrorCode, RpcError, not_found
from services.kit.eventlog import EventLog, StoredEvent
from services.kit.http import sse
from services.kit.http.dependencies import provide
from services.kit.http.draining import Draining
from tests.requirements import requirement
from tests.support.wait import wait_until

UNAVAILABLE = RpcError(ErrorCode.UNAVAILABLE, "Nobody can tell.")


def event(seq: int, kind: str = "text.delta") -> StoredEvent:
    return StoredEvent(seq, kind, 1, "{}", datetime(2026, 1, 1, tzinfo=UTC))


class Stream:
    """A fake event log; `read` has what its reader received."""

    def __init__(self) -> None:
        self.written: asyncio.Queue[list[StoredEvent]] = asyncio.Queue()
        self.draining = Draining()
        self.lost: Callable[[RpcError], None] | None = None
        self.followed = False
        self.read: list[bytes] = []
        self.max_seconds = 60.0
        self._reading: asyncio.Task[None] | None = None

    async def follow(
        self, stream_id: str, after: int, *, idle_seconds: float
    ) -> AsyncIterator[list[StoredEvent]]:
        self.followed = True
        try:
            while True:
                yield await self.written.get()
        finally:
            self.followed = False

    @contextmanager
    def watch(self, lost: Callable[[RpcError], None]) -> Iterator[None]:
        self.lost = lost
        yield
        self.lost = None

    async def open(self) -> Callable[[RpcError], None]:
        self._reading = asyncio.create_task(self._read())
        await wait_until(lambda: self.followed)
        assert self.lost is not None
        return self.lost

    async def ended(self) -> bytes:
        """The last bytes; by then the stream has released its subscriptions."""
        assert self._reading is not None
        async with asyncio.timeout(5):
            await self._reading
        assert (self.followed, self.lost, self.draining._callbacks) == (False, None, {})
        return self.read[-1]

    async def _read(self) -> None:
        chunks = sse.follow_as_sse(
            cast(EventLog, self),
            "s",
            0,
            is_terminal=lambda kind: kind == "run.completed",
            draining=self.draining,
            watch=self.watch,
            max_seconds=self.max_seconds,
        )
        async for chunk in chunks:
            self.read.append(chunk)


@pytest.fixture
def stream() -> Stream:
    return Stream()


async def test_a_stream_ends_with_its_terminal_event(stream: Stream) -> None:
    await stream.open()
    for batch in ([event(1), event(2)], [event(3, "run.completed")]):
        stream.written.put_nowait(batch)
    assert (await stream.ended()).startswith(b"id: 3\nevent: run.completed\n")
    assert [chunk[:5] for chunk in stream.read] == [b": ope", b"id: 1", b"id: 3"]


@requirement("access:stream-recheck")
@pytest.mark.parametrize("error", [not_found("stream"), UNAVAILABLE], ids=lambda error: error.code)
async def test_a_revoked_reader_gets_an_error_at_once(stream: Stream, error: RpcError) -> None:
    lost = await stream.open()
    lost(error)
    last = await stream.ended()
    assert last.startswith(b"event: error\n")
    assert f'"code":"{error.code}"'.encode() in last


@requirement("access:stream-recheck")
async def test_nothing_is_sent_after_revocation(stream: Stream) -> None:
    lost = await stream.open()
    stream.written.put_nowait([event(1)])
    lost(not_found("stream"))
    assert b"NOT_FOUND" in await stream.ended()
    assert len(stream.read) == 2


@requirement("access:stream-recheck")
async def test_the_first_cause_of_the_end_wins(stream: Stream) -> None:
    lost = await stream.open()
    lost(not_found("stream"))
    lost(UNAVAILABLE)
    stream.draining.begin()
    assert b"NOT_FOUND" in await stream.ended()


async def test_an_idle_stream_ends_when_its_process_drains(stream: Stream) -> None:
    await stream.open()
    stream.draining.begin()
    assert await stream.ended() == sse.RECONNECT


async def test_a_new_stream_in_a_draining_process_ends_at_once(stream: Stream) -> None:
    stream.draining.begin()
    stream._reading = asyncio.create_task(stream._read())
    assert await stream.ended() == sse.RECONNECT


async def test_an_idle_stream_asks_its_client_to_reconnect_after_its_maximum_duration(
    stream: Stream,
) -> None:
    stream.max_seconds = 0.05
    await stream.open()
    assert await stream.ended() == sse.RECONNECT


async def test_an_idle_stream_has_heartbeats(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(sse, "time", SimpleNamespace(monotonic=lambda: now))
    lost = await stream.open()
    stream.written.put_nowait([])
    await wait_until(stream.written.empty)
    now = sse.HEARTBEAT_SECONDS
    stream.written.put_nowait([])
    await wait_until(lambda: len(stream.read) == 2)
    assert stream.read[1] == sse.HEARTBEAT
    lost(not_found("stream"))
    await stream.ended()


@pytest.mark.parametrize(("app", "seconds"), [(b"edge", 600), (b"shop", 140), (b"", 140)])
async def test_only_streams_to_the_edge_last_longer_than_an_idle_connection(
    app: bytes, seconds: float
) -> None:
    serving = FastAPI()
    provide(serving, TrustedApps(edge="edge", callers={}))
    scope = {"type": "http", "headers": [(b"dapr-caller-app-id", app)], "app": serving}
    request = Request(scope)
    assert await sse.max_stream_seconds(request) == seconds
