"""Follows a stream of events of another app, across `reconnect` closes and lost connections."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from random import uniform
from typing import Any, Final, Generic

import aiohttp

from services.kit.contract import Ev, RpcMethod
from services.kit.dapr.rpc_replies import error_of, parse_reply
from services.kit.errors import RpcError, unavailable
from services.kit.http.sse_decoder import OversizeEvent, SseDecoder, SseEvent

IDLE_SECONDS: Final = 45.0
"""Without a byte for this long, three heartbeats, the connection counts as lost."""
STABLE_SECONDS: Final = 10.0
"""A connection that lasted as long was good, though no event came."""
CONNECT_SECONDS: Final = 2.0
"""Time limit of a connection to the sidecar, which is on this machine."""
TIMEOUT: Final = aiohttp.ClientTimeout(
    total=None, sock_connect=CONNECT_SECONDS, sock_read=IDLE_SECONDS
)
RESUME_SECONDS: Final = 60.0
"""How long a lost stream is tried to be resumed without progress."""
MAX_DELAY_SECONDS: Final = 2.0


class _Interrupted(Exception):
    """The connection ended before the terminal event; `error` is raised to the consumer if it cannot be resumed."""

    def __init__(self, error: RpcError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(slots=True)
class _Attempts:
    """Delays between attempts to resume, and their end after RESUME_SECONDS without progress."""

    failures: int = 0
    failing_since: float | None = None

    def progressed(self) -> None:
        self.failures, self.failing_since = 0, None

    async def wait(self, error: RpcError) -> None:
        """Wait before the next attempt; raises `error` if the time for attempts is over."""
        now = time.monotonic()
        if self.failing_since is None:
            self.failing_since = now
        elif now - self.failing_since > RESUME_SECONDS:
            raise error
        delay = min(0.05 * 2**self.failures, MAX_DELAY_SECONDS) * uniform(0.5, 1)
        self.failures += 1
        await asyncio.sleep(
            max(delay, error.retry_after.total_seconds() if error.retry_after else 0)
        )


@dataclass(slots=True)
class ClientStream(Generic[Ev]):
    """One call of a stream method, over as many connections as it takes.

    Memory is bounded by one event and aiohttp's read buffer: a slow consumer makes the app wait.
    """

    session: Callable[[], aiohttp.ClientSession]
    url: str
    method: RpcMethod[Any, Ev]
    body: bytes
    headers: Mapping[str, str]
    _last: int = 0
    _opened: bool = False
    _over: bool = False
    _attempts: _Attempts = field(default_factory=_Attempts)

    async def follow(self, after: int | None) -> AsyncGenerator[Ev]:
        """The events after `after`, each once, until the terminal one."""
        self._last = after or 0
        while not self._over:
            began = time.monotonic()
            try:
                async with aclosing(self._read()) as events:
                    async for event in events:
                        yield event
            except _Interrupted as interrupted:
                if not self._opened:
                    raise interrupted.error from interrupted
                if time.monotonic() - began > STABLE_SECONDS:
                    self._attempts.progressed()
                await self._attempts.wait(interrupted.error)

    async def _read(self) -> AsyncGenerator[Ev]:
        """The new events of one connection; `_over` is set if no event will follow.

        Raises:
            _Interrupted: the connection did not open, was lost, or was closed with `reconnect`.
        """
        try:
            async with self.session().post(
                self.url, data=self.body, headers=self._resuming_headers(), timeout=TIMEOUT
            ) as reply:
                await self._open(reply)
                decoder = SseDecoder()
                async for chunk in reply.content.iter_any():
                    for sent in decoder.events(chunk):
                        if (event := self._take(sent)) is not None:
                            yield event
                        if self._over:
                            return
        except (TimeoutError, aiohttp.ClientError, OversizeEvent) as error:
            raise _Interrupted(unavailable()) from error
        if not self._over:
            raise _Interrupted(unavailable())

    def _resuming_headers(self) -> dict[str, str]:
        resume = {"last-event-id": str(self._last)} if self._last else {}
        return {**self.headers, **resume}

    async def _open(self, reply: aiohttp.ClientResponse) -> None:
        """Require a stream, or 204, by which the app says that no event will follow."""
        if reply.status == 204:
            self._over = True
        elif reply.status != 200:
            error = error_of(self.method, await reply.read(), reply.status)
            raise _Interrupted(error) if error.retryable else error
        elif reply.content_type != "text/event-stream":  # the app went away before it answered
            raise _Interrupted(unavailable())
        self._opened = True

    def _take(self, sent: SseEvent) -> Ev | None:
        """The event, unless it was read before; raises the error of the event `error`."""
        if sent.type == "reconnect":
            raise _Interrupted(unavailable())
        if sent.type == "error":
            raise error_of(self.method, sent.data)
        event = parse_reply(self.method, sent.data)
        if event.seq <= self._last:
            return None
        self._last, self._over = event.seq, event.is_terminal
        self._attempts.progressed()
        return event
