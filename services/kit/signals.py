"""Wake-ups over Valkey: losing one costs latency, never data."""

import asyncio
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog
from valkey.asyncio import Valkey
from valkey.exceptions import ValkeyError

RECONNECT_SECONDS: Final = 0.5

log = structlog.get_logger()


class Signals:
    """Named wake-ups. A reader subscribes first, then reads the store, then waits."""

    def __init__(self, url: str) -> None:
        self._client: Any = Valkey.from_url(url, socket_timeout=5, socket_connect_timeout=5)
        # A listener waits for as long as it takes.
        self._reader: Any = Valkey.from_url(
            url, socket_timeout=None, socket_connect_timeout=5, socket_keepalive=True
        )
        self._pubsub: Any = self._reader.pubsub(ignore_subscribe_messages=True)
        self._listeners: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._task: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        self._origin = uuid.uuid4().hex.encode()

    async def start(self) -> None:
        """Begin to listen; an absent Valkey is not an error, readers poll meanwhile."""
        self._task = asyncio.create_task(self._listen(), name="signals")

    async def close(self) -> None:
        """Stop listening."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._pubsub.aclose()
        await self._reader.aclose()
        await self._client.aclose()

    async def notify(self, name: str) -> None:
        """Wake whoever listens to `name`, in any process."""
        self._wake(name)
        try:
            await self._client.publish(name, self._origin)
        except (ValkeyError, OSError) as error:
            log.warning("signals.publish_failed", error=type(error).__name__)

    @asynccontextmanager
    async def listen(self, name: str) -> AsyncIterator[asyncio.Event]:
        """An event that is set at each wake-up of `name`; whoever waits clears it."""
        event = asyncio.Event()
        first = not self._listeners[name]
        self._listeners[name].add(event)
        try:
            if first:
                await self._subscribe(name)
            yield event
        finally:
            self._listeners[name].discard(event)
            if not self._listeners[name]:
                del self._listeners[name]
                await self._unsubscribe(name)

    def _accept(self, message: dict[str, Any]) -> None:
        if message["data"] != self._origin:  # our own listeners were woken without the detour
            self._wake(_text(message["channel"]))

    def _wake(self, name: str) -> None:
        for event in self._listeners.get(name, ()):
            event.set()

    async def _subscribe(self, name: str) -> None:
        await self._subscribe_all([name])
        self._wanted.set()  # also after a failure: whoever listens is who tries again

    async def _unsubscribe(self, name: str) -> None:
        try:
            await self._pubsub.unsubscribe(name)
        except (ValkeyError, OSError):
            return

    async def _listen(self) -> None:
        while True:
            try:
                await self._wanted.wait()
                message = await self._pubsub.get_message(timeout=None)
                if message is not None:
                    self._accept(message)
                elif not self._pubsub.subscribed:
                    self._wanted.clear()
            except (ValkeyError, OSError, RuntimeError) as error:
                log.warning("signals.listen_failed", error=type(error).__name__)
                await asyncio.sleep(RECONNECT_SECONDS)
                await self._resubscribe()

    async def _resubscribe(self) -> None:
        names = list(self._listeners)
        if not names:
            self._wanted.clear()
            return
        await self._subscribe_all(names)
        for name in names:
            self._wake(name)

    async def _subscribe_all(self, names: list[str]) -> None:
        try:
            await self._pubsub.subscribe(*names)
        except (ValkeyError, OSError):
            return


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
