"""Server-sent events (WHATWG HTML, 9.2) of a stream in the event log."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractContextManager, aclosing
from random import uniform
from typing import Annotated, Final, cast

from fastapi import Depends, Request

from services.kit.access.identity import is_edge
from services.kit.contract import rfc3339
from services.kit.errors import RpcError
from services.kit.eventlog import EventLog, StoredEvent
from services.kit.http.draining import Draining
from services.kit.http.rpc import error_event

HEARTBEAT_SECONDS: Final = 15.0
"""Interval of comments on an idle stream. Only a write detects a disconnected reader: over HTTP/2 the sidecar does not
report it."""
MAX_STREAM_SECONDS: Final = 140.0
"""After this time the client is asked to reconnect: Dapr cuts idle sidecar connections at about three minutes
(dapr/dapr#10291)."""
MAX_EDGE_STREAM_SECONDS: Final = 600.0
"""As above, behind the edge: it keeps its sidecar connection alive."""
HEARTBEAT: Final = b": keep-alive\n\n"
OPENED: Final = b": open\n\n"
RECONNECT: Final = b"event: reconnect\ndata: {}\n\n"


async def max_stream_seconds(request: Request) -> float:
    """The maximum duration of a stream to the calling app."""
    return MAX_EDGE_STREAM_SECONDS if is_edge(request) else MAX_STREAM_SECONDS


StreamSeconds = Annotated[float, Depends(max_stream_seconds)]

Watch = Callable[[Callable[[RpcError], None]], AbstractContextManager[None]]
"""Within the context, the callback is called with an error once the reader's access is revoked."""


async def follow_as_sse(
    log: EventLog,
    stream_id: str,
    after: int,
    *,
    is_terminal: Callable[[str], bool],
    draining: Draining,
    watch: Watch,
    max_seconds: float,
    heartbeat: float = HEARTBEAT_SECONDS,
) -> AsyncIterator[bytes]:
    """Replay the events after `after`, then follow until the terminal event, with a comment every idle `heartbeat`.

    Ends early with the event `reconnect` after `max_seconds` or when the process drains, and with the event `error`
    once access is revoked.
    """
    end = _EarlyEnd(max_seconds)
    last_sent = time.monotonic()
    yield OPENED
    with watch(end.fail), draining.on_begin(end.reconnect):
        # Closed explicitly: `follow` stays subscribed until then.
        async with aclosing(
            cast(
                AsyncGenerator[list[StoredEvent]],
                log.follow(stream_id, after, idle_seconds=heartbeat),
            )
        ) as batches:
            while (batch := await end.next_batch(batches)) is not None:
                now = time.monotonic()
                if batch:
                    yield b"".join(to_sse(event) for event in batch)
                    last_sent = now
                    if is_terminal(batch[-1].type):
                        return
                elif now - last_sent >= heartbeat / 2:
                    yield HEARTBEAT
                    last_sent = now
    yield end.frame


class _EarlyEnd:
    """Ends a stream before its terminal event, interrupting the wait for the next batch; `frame` is its last event."""

    def __init__(self, max_seconds: float) -> None:
        self.frame = b""
        # Jitter: readers that connected together after a restart would otherwise all reconnect together.
        self._end_at = asyncio.get_running_loop().time() + max_seconds * uniform(0.8, 1)
        self._wait: asyncio.Timeout | None = None

    def reconnect(self) -> None:
        """End with `reconnect`."""
        self._end(RECONNECT)

    def fail(self, error: RpcError) -> None:
        """End with `error`."""
        self._end(error_event(error))

    async def next_batch(
        self, batches: AsyncIterator[list[StoredEvent]]
    ) -> list[StoredEvent] | None:
        """The next batch; None once the stream must end."""
        if self.frame:
            return None
        try:
            async with asyncio.timeout_at(self._end_at) as self._wait:
                batch = await anext(batches)
        except TimeoutError:
            self.reconnect()
        else:
            return None if self.frame else batch
        finally:
            self._wait = None
        return None

    def _end(self, frame: bytes) -> None:
        self.frame = self.frame or frame  # the first cause wins
        if self._wait is not None and not self._wait.expired():
            self._wait.reschedule(0)


def to_sse(event: StoredEvent) -> bytes:
    """One SSE event: seq as `id`, type as `event`, the event's JSON as `data`."""
    return f"id: {event.seq}\nevent: {event.type}\ndata: {to_json(event)}\n\n".encode()


def to_json(event: StoredEvent) -> str:
    """The event's JSON, byte-identical for every reader."""
    return (
        f'{{"seq":"{event.seq}","type":"{event.type}","attempt":{event.attempt},'
        f'"data":{event.data},"createdAt":"{rfc3339(event.created_at)}"}}'
    )
