"""Ends processes left by an earlier command, identified by their pid files."""

import contextlib
import signal
from typing import Final

from services.cli.stack.errors import StackError
from services.cli.stack.state import SUPERVISOR, StateFolder, send
from services.cli.stack.waiting import wait_until

_TIMEOUT_SECONDS: Final = 12.0
_QUIT_SECONDS: Final = 3.0


def reclaim(state: StateFolder) -> list[str]:
    """End leftover processes and delete their pid files; returns their names."""
    found = state.leftovers()
    if SUPERVISOR in found:
        send(found[SUPERVISOR], signal.SIGTERM)
        with contextlib.suppress(StackError):  # after the timeout it is killed below
            wait_until(
                lambda: SUPERVISOR not in state.leftovers(), _TIMEOUT_SECONDS, "supervisord to stop"
            )
    for name, pid in state.leftovers().items():
        send(pid, signal.SIGCONT)
        send(pid, signal.SIGQUIT if name == "postgres" else signal.SIGKILL)
    with contextlib.suppress(StackError):  # immediate shutdown of Postgres ends its children first
        wait_until(lambda: not state.leftovers(), _QUIT_SECONDS, "Postgres to end")
    for pid in state.leftovers().values():
        send(pid, signal.SIGKILL)
    wait_until(lambda: not state.leftovers(), _TIMEOUT_SECONDS, "leftover processes to end")
    state.clear_pid_files()
    return list(found)
