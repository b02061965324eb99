"""Follows the log files of processes, and their exits and restarts in supervisord's log."""

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from services.cli.console import Console
from services.cli.stack.listener import State
from services.cli.stack.state import is_same_file

_POLL_SECONDS: Final = 0.1
_EVENT: Final = re.compile(
    r"(exited|gave up|spawned): '?([\w-]+)'?(?: \((.*?)(?:; not expected)?\))?"
)


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
    """Writes new lines of log files to the console, and restarts of processes."""

    console: Console
    logs: Mapping[str, Path]
    supervisor_log: Path
    _stopping: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _polling: threading.Lock = field(default_factory=threading.Lock)
    _started: set[str] = field(default_factory=set[str])
    _restarted: set[str] = field(default_factory=set[str])
    _ignoring: bool = False
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

    def take_restarted(self) -> set[str]:
        """Processes that supervisord started again since the last call."""
        with self._polling:
            restarted, self._restarted = self._restarted, set()
            return restarted

    def ignore_exits(self) -> None:
        """Write no exits from here on, since the stack is being stopped."""
        self._ignoring = True

    def close(self) -> None:
        """Write the remaining lines and stop."""
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
        """Write the lines since the last poll."""
        with self._polling:
            for name, tail in self._tails.items():
                for line in tail.lines():
                    self.console.log(name, line)
            for line in self._events.lines():
                self._write_event(line)

    def _write_event(self, line: str) -> None:
        found = _EVENT.search(line)
        if found is None or self._ignoring:
            return
        kind, name, how = found.groups()
        if kind == "exited":
            self.console.process(name, State.ENDED, note=how or "")
        elif kind == "gave up":
            self.console.process(
                name, State.FAILED, note="it ended at each start; see its log file"
            )
        elif name in self._started:
            self._restarted.add(name)
            self.console.process(name, State.RESTARTING)
        else:
            self._started.add(name)
