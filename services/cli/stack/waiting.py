"""Polls a condition with a timeout."""

import time
from collections.abc import Callable

from services.cli.stack.errors import StackError


def wait_until(
    condition: Callable[[], bool],
    seconds: float,
    what: str,
    check: Callable[[], None] | None = None,
    interval: float = 0.05,
) -> None:
    """Return once the condition holds; `check` runs at each poll and may raise to stop early.

    Raises:
        StackError: timeout.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if check is not None:
            check()
        if time.monotonic() > deadline:
            raise StackError(f"timed out after {seconds:.0f} s waiting for {what}")
        time.sleep(interval)
