"""Server-sent events of a stream in the event log (WHATWG HTML, 9.2)."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractContextManager, aclosing
from datetime import UTC, datetime
from random import uniform
from typing import Annotated, Final, cast

from fastapi import Depends, Request

from services.kit.access.identity import is_edge
from services.kit.errors import RpcError
from services.kit.eventlog import EventLog, StoredEvent
from services.kit.http.draining import Draining
from services.kit.http.rpc import error_event

HEARTBEAT_SECONDS: Final = 15.0
"""A stream without news for so long gets a comment. Only by writing it shows that a reader has left: a sidecar that
speaks HTTP/2 to its app does not tell it."""
ROTATE_SECONDS: Final = 140.0
"""Between sidecars that nothing else is said by, a stream is cut at about three minutes (dapr/dapr#10291); the client is
asked to reconnect before."""
ROTATE_BEHIND_EDGE_SECONDS: Final = 600.0
"""The edge says something each minute while it holds streams; longer than this no turn takes."""
HEARTBEAT: Final = b": keep-alive\n\n"
OPENED: Final = b": open\n\n"
RECONNECT: Final = b"event: reconnect\ndata: {}\n\n"


async def stream_seconds(request: Request) -> float:
    """After how long a stream to the calling app has to rotate."""
    return ROTATE_BEHIND_EDGE_SECONDS if is_edge(request) else ROTATE_SECONDS


StreamSeconds = Annotated[float, Depends(stream_seconds)]

Watch = Callable[[Callable[[RpcError], None]], AbstractContextManager[None]]
"""Within it, the given function is called once the reader may no longer read, with what to tell it."""


async def follow_as_sse(
    log: EventLog,
    stream_id: str,
    after: int,
    *,
    is_terminal: Callable[[str], bool],
    draining: Draining,
    watch: Watch,
    rotate: float,
    heartbeat: float = HEARTBEAT_SECONDS,
) -> AsyncIterator[bytes]:
    """Replay from `after`, then follow until the terminal event, with a comment after each `heartbeat` seconds of silence.

    Ends early with the event `reconnect` after `rotate` seconds and when the process drains, and with `error`, whose
    data is an RpcError, once the reader may no longer read.
    """
    end = _EarlyEnd(rotate)
    last_sent = time.monotonic()
    yield OPENED
    with watch(end.fail), draining.calls(end.reconnect):
        # Closed with the stream, whatever ends it: `follow` listens until then.
        async with aclosing(
            cast(
                AsyncGenerator[list[StoredEvent]],
                log.follow(stream_id, after, idle_seconds=heartbeat),
            )
        ) as batches:
            while (batch := await end.or_next(batches)) is not None:
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
    """Ends a stream before its terminal event: it interrupts the wait for the next batch, and no batch follows."""

    def __init__(self, rotate: float) -> None:
        self.frame = b""
        # Not all at once: readers that came together after a restart would come together again and again.
        self._rotate_at = asyncio.get_running_loop().time() + rotate * uniform(0.8, 1)
        self._wait: asyncio.Timeout | None = None

    def reconnect(self) -> None:
        """The client comes back and goes on elsewhere."""
        self._end(RECONNECT)

    def fail(self, error: RpcError) -> None:
        """The client is told why it gets no more."""
        self._end(error_event(error))

    async def or_next(self, batches: AsyncIterator[list[StoredEvent]]) -> list[StoredEvent] | None:
        """The next batch; None once the stream has to end."""
        if self.frame:
            return None
        try:
            async with asyncio.timeout_at(self._rotate_at) as self._wait:
                batch = await anext(batches)
        except TimeoutError:
            self.reconnect()
        else:
            return None if self.frame else batch
        finally:
            self._wait = None
        return None

    def _end(self, frame: bytes) -> None:
        self.frame = self.frame or frame  # the first reason counts
        if self._wait is not None and not self._wait.expired():
            self._wait.reschedule(0)


def to_sse(event: StoredEvent) -> bytes:
    """One event: its seq as `id`, its type as `event`, the same JSON as ListEvents gives as `data`."""
    return f"id: {event.seq}\nevent: {event.type}\ndata: {to_json(event)}\n\n".encode()


def to_json(event: StoredEvent) -> str:
    """The event's JSON, the same bytes for every reader."""
    return (
        f'{{"seq":"{event.seq}","type":"{event.type}","attempt":{event.attempt},'
        f'"data":{event.data},"createdAt":"{_rfc3339(event.created_at)}"}}'
    )


def _rfc3339(value: datetime) -> str:
    return (
        value.astimezone(UTC)
        .isoformat(timespec="microseconds")
        .replace("+00:00", "Z")
        .replace(".000000Z", "Z")
    )
