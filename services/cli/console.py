"""Console output of `yocaso up` and `yocaso infra`: plain lines, a terminal's live display, or JSON lines."""

import json
import sys
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from typing_extensions import override

from services.cli.log_lines import LineFormat
from services.cli.stack.builds import BuildStatus
from services.cli.stack.listener import State
from services.kit.telemetry.console_format import is_terminal, wants_colours

OWN_NAME: Final = "yocaso"
NAME_WIDTH: Final = 16
_COLOURS: Final = (36, 32, 33, 35, 34, 96, 92, 93, 95, 94)
_BUILD_SECONDS: Final = 15.0
"""Seconds between two lines about the progress of builds."""


def open_console(*, as_json: bool) -> "Console":
    """The console for this standard output."""
    if as_json:
        return JsonConsole()
    if is_terminal(sys.stdout):
        from services.cli.terminal import TerminalConsole

        return TerminalConsole(colours=wants_colours(sys.stdout))
    return Console(colours=wants_colours(sys.stdout))


def describe(state: State, seconds: float, note: str, *, again: bool) -> str:
    """The state of a process in words."""
    match state:
        case State.READY:
            return f"ready{' again' if again else ''} in {seconds:.1f} s"
        case State.ENDED | State.FAILED if note:
            return f"{state.value} ({note})"
        case _:
            return state.value


class Console:
    """Plain lines on standard output, written by several threads; each starts with a name."""

    def __init__(self, *, colours: bool) -> None:
        self.colours = colours
        self._format = LineFormat(colours=colours)
        self._known: dict[str, int] = {}
        self._lock = threading.RLock()
        self._seen_ready: set[str] = set()
        self._next_build = 0.0

    def report(self, text: str) -> None:
        """Write a line of the command itself."""
        self.write(OWN_NAME, text)

    def process(self, name: str, state: State, seconds: float = 0.0, note: str = "") -> None:
        """Write that a process is ready, ended, failed or is started again."""
        if state not in (State.BUILDING, State.STARTING):
            self.write(name, self.describe(name, state, seconds, note))

    def building(self, status: BuildStatus | None) -> None:
        """Write the progress of the builds now and then."""
        if status is not None and time.monotonic() >= self._next_build:
            self._next_build = time.monotonic() + _BUILD_SECONDS
            self.report(str(status))

    def log(self, name: str, line: str) -> None:
        """Write a log line of a process, if it is for people."""
        shown = self._format.readable(line)
        for each in shown.splitlines() if shown is not None else ():
            self.write(name, each)

    def settle(self) -> None:
        """The start is over."""

    def summary(self, title: str, rows: Mapping[str, str], steps: str) -> None:
        """Write what runs where, and what to do next."""
        width = max(map(len, rows), default=0)
        table = "".join(f"  {name:<{width}}  {value}\n" for name, value in rows.items())
        self.show(f"\n{title}\n\n{table}{steps}")

    def describe(self, name: str, state: State, seconds: float, note: str) -> str:
        """The state of a process in words; the second time it is ready, it is so again."""
        with self._lock:
            again = name in self._seen_ready
            if state is State.READY:
                self._seen_ready.add(name)
            return describe(state, seconds, note, again=again)

    def write(self, name: str, text: str) -> None:
        """Write a line under a process's name."""
        label = f"{name:<{NAME_WIDTH}} |"
        with self._lock:
            if self.colours:
                code = _COLOURS[self._known.setdefault(name, len(self._known)) % len(_COLOURS)]
                label = f"\x1b[{code}m{label}\x1b[0m"
            self.show(f"{label} {text}\n")

    def show(self, text: str) -> None:
        """Write text as it is."""
        with self._lock:
            sys.stdout.write(text)
            sys.stdout.flush()


class JsonConsole(Console):
    """One JSON object a line: logs as the processes wrote them, and the command's own events."""

    def __init__(self) -> None:
        super().__init__(colours=False)

    @override
    def report(self, text: str) -> None:
        self._event(text)

    @override
    def process(self, name: str, state: State, seconds: float = 0.0, note: str = "") -> None:
        more = {"seconds": round(seconds, 3)} if state is State.READY else {}
        more |= {"note": note} if note else {}
        self._event(f"process.{state.name.lower()}", process=name, **more)

    @override
    def building(self, status: BuildStatus | None) -> None:
        if status is not None and time.monotonic() >= self._next_build:
            self._next_build = time.monotonic() + _BUILD_SECONDS
            self._event("programs.building", fraction=round(status.fraction, 3), detail=str(status))

    @override
    def log(self, name: str, line: str) -> None:
        is_object = line.startswith("{") and line.endswith("}")
        self.show(line + "\n") if is_object else self._event(line, app=name)

    @override
    def summary(self, title: str, rows: Mapping[str, str], steps: str) -> None:
        self._event(title, addresses=dict(rows))

    def _event(self, event: str, **fields: Any) -> None:
        time_text = datetime.now(UTC).isoformat()
        line = {"event": event, "app": OWN_NAME, "level": "info", "timestamp": time_text, **fields}
        self.show(json.dumps(line, ensure_ascii=False) + "\n")
