"""Signals that stop the stack: the first stops it in order, a second one at once."""

import signal
import threading
import time
from types import FrameType
from typing import Final

_STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_REPEAT_SECONDS: Final = 0.3
"""A wrapper such as `uv run` may pass on a signal that the terminal sent to the whole process group."""


class Interrupted(BaseException):
    """A signal arrived during the start."""


class StopSignals:
    """Handles SIGINT, SIGTERM and SIGHUP. The first raises `Interrupted` in the main thread until `started`."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self.at_once = threading.Event()
        self._raising = True
        self._first = 0.0
        for number in _STOPPING:
            signal.signal(number, self._handle)

    def started(self) -> None:
        """From here on a signal only sets `stopping`, and a second one `at_once`."""
        self._raising = False

    def ignore(self) -> None:
        """The stack has stopped: one more signal does not change the exit status."""
        for number in _STOPPING:
            signal.signal(number, signal.SIG_IGN)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.stopping.is_set():
            is_repeated = time.monotonic() - self._first < _REPEAT_SECONDS
            if number != signal.SIGHUP and not is_repeated:
                self.at_once.set()
            return
        self._first = time.monotonic()
        self.stopping.set()
        if self._raising:
            self._raising = False
            raise Interrupted
