"""Ending what an earlier command left behind: only processes that the records prove to be ours."""

import signal
from typing import Final

from services.cli.stack.errors import StackError
from services.cli.stack.state import StateFolder, send
from services.cli.stack.waiting import wait_until

_SUPERVISOR: Final = "supervisor"
_ORDERLY_SECONDS: Final = 12.0


def reclaim(state: StateFolder) -> list[str]:
    """End our leftovers and forget them; returns their names."""
    found = state.leftovers()
    if _SUPERVISOR in found:
        _end(state, {_SUPERVISOR: found[_SUPERVISOR]}, signal.SIGTERM, _ORDERLY_SECONDS)
    rest = state.leftovers()
    for name, pid in rest.items():
        send(pid, signal.SIGCONT)
        send(pid, signal.SIGQUIT if name == "postgres" else signal.SIGKILL)
    wait_until(lambda: not state.leftovers(), _ORDERLY_SECONDS, "leftover processes to end")
    state.clear_records()
    return list(found)


def _end(state: StateFolder, processes: dict[str, int], signal_number: int, seconds: float) -> None:
    for pid in processes.values():
        send(pid, signal_number)
    names = set(processes)
    try:
        wait_until(lambda: not names & set(state.leftovers()), seconds, "the supervisor to stop")
    except StackError:
        return  # it is killed next
