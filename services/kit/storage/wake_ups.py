"""Wake-ups over Valkey pub/sub. A lost one costs latency, never data: readers also poll. No caller waits for Valkey."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import structlog
from valkey.asyncio import Valkey
from valkey.exceptions import ValkeyError

RECONNECT_SECONDS: Final = 0.5
TIMEOUT_SECONDS: Final = 2.0
MAX_PENDING: Final = 10_000
"""Unsent wake-ups kept while Valkey is unavailable; more are dropped."""
MAX_BATCH: Final = 500
"""Wake-ups per pipeline."""

Wake = Callable[[], None]

log = structlog.get_logger()


@dataclass(eq=False, slots=True)
class Subscription:
    """A callback for the wake-ups of one name."""

    _wake_ups: "WakeUps"
    name: str
    wake: Wake

    def close(self) -> None:
        self._wake_ups.unsubscribe(self)


class WakeUps:
    """Named wake-ups. A reader subscribes, then reads the store, then waits.

    A subscriber is also woken when Valkey confirms its subscription, as earlier wake-ups did not reach it.
    """

    def __init__(self, url: str) -> None:
        self._client: Any = Valkey.from_url(
            url, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS
        )
        # No socket timeout: the subscription may be idle.
        self._reader: Any = Valkey.from_url(
            url, socket_timeout=None, socket_connect_timeout=TIMEOUT_SECONDS, socket_keepalive=True
        )
        self._pubsub: Any = self._reader.pubsub()
        self._listeners: dict[str, set[Subscription]] = {}
        self._subscribed: set[str] = set()
        self._changed = asyncio.Event()
        self._connected = asyncio.Event()
        self._pending: dict[str, None] = {}  # an ordered set
        self._has_pending = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._origin = uuid.uuid4().hex.encode()

    def start(self) -> None:
        """Begin to send and receive; while Valkey is unavailable, connecting is retried."""
        for work in (self._publish, self._keep_subscribed, self._listen):
            self._tasks.append(asyncio.create_task(work(), name=f"wake-ups {work.__name__}"))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._pubsub.aclose()
        await self._reader.aclose()
        await self._client.aclose()

    def wake(self, name: str) -> None:
        """Wake the subscribers of `name`: in this process at once, in others through Valkey."""
        self._wake_local(name)
        if len(self._pending) < MAX_PENDING:
            self._pending[name] = None
            self._has_pending.set()

    def subscribe(self, name: str, wake: Wake) -> Subscription:
        """Call `wake` at each wake-up of `name` until the subscription is closed."""
        subscription = Subscription(self, name, wake)
        self._listeners.setdefault(name, set()).add(subscription)
        self._changed.set()
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Remove a subscription; see `Subscription.close`."""
        listeners = self._listeners.get(subscription.name)
        if listeners is not None:
            listeners.discard(subscription)
            if not listeners:
                del self._listeners[subscription.name]
                self._changed.set()

    @asynccontextmanager
    async def listen(self, name: str) -> AsyncIterator[asyncio.Event]:
        """An event that is set at each wake-up of `name`; the reader clears it."""
        event = asyncio.Event()
        subscription = self.subscribe(name, event.set)
        try:
            yield event
        finally:
            subscription.close()

    def _wake_local(self, name: str) -> None:
        for subscription in tuple(self._listeners.get(name, ())):
            subscription.wake()

    async def _publish(self) -> None:
        while True:
            await self._has_pending.wait()
            self._has_pending.clear()
            while self._pending:
                names = list(self._pending)[:MAX_BATCH]
                for name in names:
                    del self._pending[name]
                await self._send(names)

    async def _send(self, names: list[str]) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for name in names:
            pipeline.publish(name, self._origin)
        try:
            await pipeline.execute()
        except (ValkeyError, OSError) as error:
            log.warning("wake_ups.publish_failed", error=type(error).__name__)

    async def _keep_subscribed(self) -> None:
        """Subscribe and unsubscribe in Valkey as listeners come and go."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            wanted = set(self._listeners)
            try:
                async with asyncio.timeout(TIMEOUT_SECONDS):
                    if new := wanted - self._subscribed:
                        await self._pubsub.subscribe(*new)
                    if old := self._subscribed - wanted:
                        await self._pubsub.unsubscribe(*old)
            except (ValkeyError, OSError, TimeoutError):
                self._changed.set()
                await asyncio.sleep(RECONNECT_SECONDS)
            else:
                self._subscribed = wanted
                self._connected.set()

    async def _listen(self) -> None:
        while True:
            await self._connected.wait()
            try:
                message = await self._pubsub.get_message(timeout=None)
            except (ValkeyError, OSError, RuntimeError) as error:
                log.warning("wake_ups.listen_failed", error=type(error).__name__)
                self._resubscribe()
                await asyncio.sleep(RECONNECT_SECONDS)
                continue
            if message is not None:
                self._accept(message)
            elif not self._pubsub.subscribed:
                self._connected.clear()

    def _resubscribe(self) -> None:
        """After a lost connection, subscribe to every name again."""
        self._connected.clear()
        self._subscribed = set()
        self._changed.set()

    def _accept(self, message: dict[str, Any]) -> None:
        if message["type"] in ("subscribe", "message") and message["data"] != self._origin:
            self._wake_local(_text(message["channel"]))  # own messages were delivered by `wake`


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
