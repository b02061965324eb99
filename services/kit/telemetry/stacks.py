"""Stacks of a process that hangs, for tests and for debugging."""

import asyncio
import faulthandler
import os
import signal
import sys
from types import FrameType
from typing import Final

from services.kit.failpoints import SOCKET_VARIABLE

STACKS_VARIABLE: Final = "YOCASO_STACKS_ON_SIGNAL"


def print_stacks_on_signal() -> None:
    """Print the stacks of all threads and asyncio tasks to stderr at SIGUSR1.

    Only if `YOCASO_STACKS_ON_SIGNAL` is set, or a test's `YOCASO_FAILPOINT_SOCKET`: otherwise the signal has its default.
    """
    if not os.environ.keys() & {STACKS_VARIABLE, SOCKET_VARIABLE}:
        return
    signal.signal(signal.SIGUSR1, _print_tasks)
    faulthandler.register(signal.SIGUSR1, all_threads=True, chain=True)


def _print_tasks(number: int, frame: FrameType | None) -> None:
    del number, frame
    try:
        tasks = asyncio.all_tasks()
    except RuntimeError:  # no loop runs
        return
    for task in tasks:
        task.print_stack(limit=12, file=sys.stderr)
    sys.stderr.flush()
