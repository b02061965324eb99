"""Console output of `yocaso up`: its own messages, the processes' log lines, and restarts."""

import re
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from services.cli.stack.state import is_same_file

_COLOURS: Final = (36, 32, 33, 35, 34, 96, 92, 93, 95, 94)
_POLL_SECONDS: Final = 0.1
_NAME_WIDTH: Final = 16
_EVENT: Final = re.compile(r"(exited|gave up|spawned|success): '?([\w-]+)'?(.*)")


class Console:
    """Standard output, written by several threads; each line starts with a name."""

    def __init__(self, *, colours: bool | None = None) -> None:
        self._colours = sys.stdout.isatty() if colours is None else colours
        self._known: dict[str, int] = {}
        self._lock = threading.Lock()

    def report(self, text: str) -> None:
        """Write a line of the command itself."""
        self.write("yocaso", text)

    def write(self, name: str, text: str) -> None:
        """Write a line under a process's name."""
        label = f"{name:<{_NAME_WIDTH}} |"
        if self._colours:
            code = _COLOURS[self._known.setdefault(name, len(self._known)) % len(_COLOURS)]
            label = f"\x1b[{code}m{label}\x1b[0m"
        with self._lock:
            sys.stdout.write(f"{label} {text}\n")
            sys.stdout.flush()


@dataclass(slots=True)
class _Tail:
    """Reads the lines appended to a file, across log rotations."""

    path: Path
    file: IO[str] | None = None
    partial: str = ""
    from_end: bool = True

    def lines(self) -> list[str]:
        if self.file is None and not self._open():
            return []
        assert self.file is not None
        text = self.partial + self.file.read()
        complete, newline, self.partial = text.rpartition("\n")
        if not newline:
            complete, self.partial = "", text
        if not is_same_file(self.path, self.file.fileno()):
            self.file.close()
            self.file, self.from_end = None, False
        return complete.split("\n") if complete else []

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None

    def _open(self) -> bool:
        try:
            self.file = self.path.open(encoding="utf-8", errors="replace")
        except OSError:
            self.from_end = False
            return False
        if self.from_end:
            self.file.seek(0, 2)
        return True


@dataclass
class LogFollower:
    """Prints new lines of log files, and restarts from supervisord's log."""

    console: Console
    logs: Mapping[str, Path]
    supervisor_log: Path
    _stopping: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _polling: threading.Lock = field(default_factory=threading.Lock)
    _started: set[str] = field(default_factory=set[str])
    _tails: dict[str, _Tail] = field(init=False)
    _events: _Tail = field(init=False)

    def __post_init__(self) -> None:
        self._tails = {name: _Tail(path) for name, path in self.logs.items()}
        self._events = _Tail(self.supervisor_log)

    def begin(self) -> None:
        """Start following at the current end of each file."""
        self.poll()
        self._thread = threading.Thread(target=self._run, name="logs", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Print the remaining lines and stop."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        for tail in (*self._tails.values(), self._events):
            tail.close()

    def _run(self) -> None:
        while not self._stopping.wait(_POLL_SECONDS):
            self.poll()
        self.poll()

    def poll(self) -> None:
        """Print the lines written since the last poll."""
        with self._polling:
            for name, tail in self._tails.items():
                for line in tail.lines():
                    self.console.write(name, line)
            for line in self._events.lines():
                if message := self._message(line):
                    self.console.report(message)

    def _message(self, line: str) -> str:
        found = _EVENT.search(line)
        if found is None:
            return ""
        kind, name, rest = found.groups()
        if kind == "spawned":
            restarted = name in self._started
            self._started.add(name)
            return f"{name} was restarted" if restarted else ""
        if kind == "exited":
            return f"{name} ended {rest.strip().replace('; not expected', '')}; restarting it"
        if kind == "gave up":
            return f"{name} failed at each start and is not restarted; see its log file"
        return ""
