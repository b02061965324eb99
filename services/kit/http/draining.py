"""Says once that the process stops, to all who hold a call open."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Draining:
    """False until the process begins to stop."""

    def __init__(self) -> None:
        self._begun = False
        self._waiting: dict[Callable[[], None], asyncio.AbstractEventLoop] = {}

    def __bool__(self) -> bool:
        return self._begun

    def begin(self) -> None:
        """Call back everybody who waits. May be called by a signal handler."""
        self._begun = True
        for told, loop in tuple(self._waiting.items()):
            loop.call_soon_threadsafe(told)

    @contextmanager
    def calls(self, told: Callable[[], None]) -> Iterator[None]:
        """Call `told` once the process begins to stop; at once where it has begun."""
        self._waiting[told] = asyncio.get_running_loop()
        if self._begun:
            told()
        try:
            yield
        finally:
            del self._waiting[told]
