"""Wake-ups over Valkey: losing one costs latency, never data. No caller ever waits for Valkey."""

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
MAX_WAITING: Final = 10_000
"""Wake-ups that wait while Valkey does not answer; past that they are dropped, and readers poll."""
MAX_AT_ONCE: Final = 500

Wake = Callable[[], None]

log = structlog.get_logger()


@dataclass(eq=False, slots=True)
class Subscription:
    """One listener of one name, until it is closed."""

    _wake_ups: "WakeUps"
    name: str
    wake: Wake

    def close(self) -> None:
        """Listen no more."""
        self._wake_ups.unsubscribe(self)


class WakeUps:
    """Named wake-ups. A reader subscribes first, then reads the store, then waits.

    A listener is also woken once its subscription stands, since what was sent before did not reach it.
    """

    def __init__(self, url: str) -> None:
        self._client: Any = Valkey.from_url(
            url, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS
        )
        # A listener waits for as long as it takes.
        self._reader: Any = Valkey.from_url(
            url, socket_timeout=None, socket_connect_timeout=TIMEOUT_SECONDS, socket_keepalive=True
        )
        self._pubsub: Any = self._reader.pubsub()
        self._listeners: dict[str, set[Subscription]] = {}
        self._subscribed: set[str] = set()
        self._changed = asyncio.Event()
        self._connected = asyncio.Event()
        self._outbox: dict[str, None] = {}  # in order, each once
        self._posted = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._origin = uuid.uuid4().hex.encode()

    def start(self) -> None:
        """Begin to send and to listen; an absent Valkey is not an error, readers poll meanwhile."""
        for work in (self._publish, self._keep_subscribed, self._listen):
            self._tasks.append(asyncio.create_task(work(), name=f"wake-ups {work.__name__}"))

    async def close(self) -> None:
        """Stop listening."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._pubsub.aclose()
        await self._reader.aclose()
        await self._client.aclose()

    async def notify(self, name: str) -> None:
        """Wake who listens to `name`, in any process. Returns at once."""
        self.wake(name)

    def wake(self, name: str) -> None:
        """Wake who listens to `name`: here at once, in other processes soon."""
        self._wake(name)
        if len(self._outbox) < MAX_WAITING:
            self._outbox[name] = None
            self._posted.set()

    def subscribe(self, name: str, wake: Wake) -> Subscription:
        """Call `wake` at each wake-up of `name`, until the subscription is closed."""
        subscription = Subscription(self, name, wake)
        self._listeners.setdefault(name, set()).add(subscription)
        self._changed.set()
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Listen no more; see `Subscription.close`."""
        listeners = self._listeners.get(subscription.name)
        if listeners is not None:
            listeners.discard(subscription)
            if not listeners:
                del self._listeners[subscription.name]
                self._changed.set()

    @asynccontextmanager
    async def listen(self, name: str) -> AsyncIterator[asyncio.Event]:
        """An event that is set at each wake-up of `name`; whoever waits clears it."""
        event = asyncio.Event()
        subscription = self.subscribe(name, event.set)
        try:
            yield event
        finally:
            subscription.close()

    def _wake(self, name: str) -> None:
        for subscription in tuple(self._listeners.get(name, ())):
            subscription.wake()

    async def _publish(self) -> None:
        while True:
            await self._posted.wait()
            self._posted.clear()
            while self._outbox:
                names = list(self._outbox)[:MAX_AT_ONCE]
                for name in names:
                    del self._outbox[name]
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
        """Bring the connection's subscriptions in line with the listeners."""
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
                self._lost()
                await asyncio.sleep(RECONNECT_SECONDS)
                continue
            if message is not None:
                self._accept(message)
            elif not self._pubsub.subscribed:
                self._connected.clear()

    def _lost(self) -> None:
        """The connection broke: subscribe to everything anew."""
        self._connected.clear()
        self._subscribed = set()
        self._changed.set()

    def _accept(self, message: dict[str, Any]) -> None:
        if message["type"] in ("subscribe", "message") and message["data"] != self._origin:
            self._wake(_text(message["channel"]))  # ours were woken without the detour


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
