"""Server-sent events of a stream in the event log (WHATWG HTML, 9.2)."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

from services.kit.errors import RpcError, not_found
from services.kit.eventlog import EventLog, StoredEvent

HEARTBEAT_SECONDS: Final = 15.0
ROTATE_SECONDS: Final = 140.0
"""A sidecar cuts an idle stream at about three minutes; the client is asked to reconnect before."""
RECHECK_SECONDS: Final = 5.0
"""How often a stream asks whether its reader may still read."""
UNSURE_SECONDS: Final = 10.0
"""How long it goes on while nobody can tell."""
HEARTBEAT: Final = b": keep-alive\n\n"
OPENED: Final = b": open\n\n"


async def follow_as_sse(
    log: EventLog,
    stream_id: str,
    after: int,
    *,
    is_terminal: Callable[[str], bool],
    draining: Callable[[], bool],
    permitted: Callable[[], Awaitable[bool]],
) -> AsyncIterator[bytes]:
    """Replay from `after`, then follow until the terminal event, with a heartbeat every 15 s.

    Ends early with the event `reconnect` before the sidecar's limit and when the process drains, and with `error`,
    whose data is an RpcError, within 10 s once the reader may no longer read: NOT_FOUND, or UNAVAILABLE where
    nobody can tell.
    """
    opened = last_sent = time.monotonic()
    permission = _Permission(permitted)
    yield OPENED
    async for batch in log.follow(stream_id, after):
        now = time.monotonic()
        if (error := await permission.missing(now)) is not None:
            yield b"event: error\ndata: " + error.to_body().to_json() + b"\n\n"
            return
        if batch:
            yield b"".join(to_sse(event) for event in batch)
            last_sent = now
            if is_terminal(batch[-1].type):
                return
        elif now - last_sent >= HEARTBEAT_SECONDS:
            yield HEARTBEAT
            last_sent = now
        if now - opened >= ROTATE_SECONDS or draining():
            yield b"event: reconnect\ndata: {}\n\n"
            return


class _Permission:
    """Asks at intervals whether a reader may still read."""

    def __init__(self, permitted: Callable[[], Awaitable[bool]]) -> None:
        self._permitted = permitted
        self._sure_at = self._asked_at = time.monotonic()

    async def missing(self, now: float) -> RpcError | None:
        """Why the stream has to end, if it has to."""
        interval = RECHECK_SECONDS if self._asked_at == self._sure_at else 1.0
        if now - self._asked_at < interval:
            return None
        self._asked_at = now
        try:
            if not await self._permitted():
                return not_found("stream")
        except RpcError as error:
            return error if now - self._sure_at >= UNSURE_SECONDS else None
        self._sure_at = now
        return None


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
