"""Notifies open streams and long calls that the process is shutting down."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Draining:
    """False until shutdown begins."""

    def __init__(self) -> None:
        self._begun = False
        self._callbacks: dict[Callable[[], None], asyncio.AbstractEventLoop] = {}

    def __bool__(self) -> bool:
        return self._begun

    def begin(self) -> None:
        """Begin shutdown and run the callbacks; safe in a signal handler."""
        self._begun = True
        for callback, loop in tuple(self._callbacks.items()):
            loop.call_soon_threadsafe(callback)

    @contextmanager
    def on_begin(self, callback: Callable[[], None]) -> Iterator[None]:
        """Within the block, run `callback` when shutdown begins, or at once if it has."""
        self._callbacks[callback] = asyncio.get_running_loop()
        if self._begun:
            callback()
        try:
            yield
        finally:
            del self._callbacks[callback]
