"""Waiting on a condition, with a bound and a name for what is awaited."""

import time
from collections.abc import Callable

from services.cli.stack.errors import StackError


def wait_until(
    holds: Callable[[], bool],
    seconds: float,
    what: str,
    meanwhile: Callable[[], None] | None = None,
    pause: float = 0.05,
) -> None:
    """Return once it holds; `meanwhile` may raise to give up early.

    Raises:
        StackError: it did not hold in time.
    """
    deadline = time.monotonic() + seconds
    while not holds():
        if meanwhile is not None:
            meanwhile()
        if time.monotonic() > deadline:
            raise StackError(f"waited {seconds:.0f} s for {what}")
        time.sleep(pause)
