"""Controls failpoints of running processes: arms them, and sees each hit, where the process waits until released."""

import contextlib
import functools
import json
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self, TextIO

from services.kit.failpoints import SOCKET_VARIABLE
from tests.support.wait import wait_until

ROOT: Final = Path(__file__).parents[2]
SOURCES: Final = ("services", "workflows")
REPLY_SECONDS: Final = 10.0
_CALL: Final = re.compile(r'\bfailpoint\(\s*"([^"]+)"')


@functools.cache
def declared(*folders: str) -> frozenset[str]:
    """The names of the failpoints in some folders of the repository, by default in all: the calls declare them."""
    files = (file for folder in folders or SOURCES for file in (ROOT / folder).rglob("*.py"))
    return frozenset(name for file in files for name in _CALL.findall(file.read_text()))


@dataclass(slots=True)
class Hit:
    """A process at a failpoint; a stopped one waits for `release`."""

    name: str
    hit: int
    action: str
    pid: int
    app: str
    _connection: socket.socket = field(repr=False)
    released: bool = False

    @property
    def is_standing(self) -> bool:
        """Whether the process still waits at the step: it was not released, its task not cancelled, and it lives."""
        if self.released:
            return False
        try:
            return self._connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def release(self, line: str = "go") -> None:
        """Let the process continue; no error if it has died."""
        if self.released:
            return
        self.released = True
        with contextlib.suppress(OSError), self._connection:
            self._connection.sendall(line.encode() + b"\n")


@dataclass(slots=True)
class _Process:
    """A process that takes commands."""

    pid: int
    app: str
    connection: socket.socket
    lines: TextIO

    def command(self, line: str) -> bool:
        """Whether the process followed the command; False if it has died."""
        try:
            self.lines.write(line + "\n")
            self.lines.flush()
            reply = self.lines.readline().strip()
        except TimeoutError:
            raise AssertionError(f"{self.app} ({self.pid}) did not answer {line!r}") from None
        except (OSError, ValueError):
            return False
        assert reply in ("ok", ""), f"{self.app} ({self.pid}): {reply}"
        return reply == "ok"

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.lines.close()
        self.connection.close()


class FailpointControl:
    """The controller at a unix socket, in a thread of its own: starts that block the event loop do not block it.

    Processes with `environment` connect when they start; those that restart are armed again. Each name takes effect
    once per arming: later hits pass. `points` are armed from the beginning.
    """

    def __init__(self, path: Path, *points: str) -> None:
        self.hits: list[Hit] = []
        self._path = path
        self._points: dict[str, str] = {"": _checked(points)}
        self._processes: list[_Process] = []
        self._lock = threading.Lock()
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._thread = threading.Thread(target=self._serve, name="failpoint control", daemon=True)

    def __enter__(self) -> Self:
        self._server.bind(str(self._path))
        self._server.listen(64)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)  # ends `accept`
        self._thread.join()
        self._server.close()
        self.disarm()
        for process in self._processes:
            process.close()
        self._path.unlink(missing_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        """The environment by which a process connects when it starts."""
        return {SOCKET_VARIABLE: str(self._path)}

    def arm(self, *points: str, app: str = "") -> None:
        """Arm `name:hit:action`, in place of what was armed, in all processes or in those of an app."""
        with self._lock:
            self._points = {app: _checked(points)}
            self._tell_all()

    def disarm(self) -> None:
        """Disarm everything, let every process continue, and forget the hits."""
        with self._lock:
            self._points = {}
            self._tell_all()
            for hit in self.hits:
                hit.release("skip")
            self.hits.clear()

    async def wait_for(self, name: str, timeout: float = 10.0) -> Hit:
        """Wait for the first hit of a failpoint; without a hit the test fails, because no fault happened."""
        try:
            await wait_until(lambda: self.has_hit(name), timeout, every=0.005)
        except AssertionError:
            seen = [each.name for each in self.hits]
            raise AssertionError(f"no hit of {name} within {timeout:g} s; hit: {seen}") from None
        return next(each for each in self.hits if each.name == name)

    def has_hit(self, name: str) -> bool:
        """Whether a process has hit the failpoint."""
        return any(each.name == name for each in self.hits)

    def standing(self) -> Iterator[Hit]:
        """The hits at which a process still waits."""
        return (each for each in self.hits if each.is_standing)

    def _tell_all(self) -> None:
        for process in list(self._processes):
            if not process.command(self._command_for(process.app)):
                self._processes.remove(process)
                process.close()

    def _command_for(self, app: str) -> str:
        points = self._points.get("") or self._points.get(app)
        return f"arm {points}" if points else "disarm"

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with contextlib.suppress(OSError, ValueError):
                self._accept(connection)

    def _accept(self, connection: socket.socket) -> None:
        """Take the first line of a connection: of a hit, or of a process that takes commands."""
        connection.settimeout(REPLY_SECONDS)
        lines = connection.makefile("rw", encoding="utf-8", newline="\n")
        line = lines.readline()
        if not line:
            connection.close()
            return
        values = json.loads(line)
        with self._lock:
            if "name" in values:
                connection.settimeout(None)
                self._take(Hit(**values, _connection=connection))
                return
            process = _Process(**values, connection=connection, lines=lines)
            if process.command(self._command_for(process.app)):
                self._processes.append(process)

    def _take(self, hit: Hit) -> None:
        is_repeated = self.has_hit(hit.name)
        self.hits.append(hit)
        if is_repeated or not self._points:
            hit.release("skip")
        elif hit.action == "kill":
            hit.release("kill")


def _checked(points: tuple[str, ...]) -> str:
    names = {point.partition(":")[0] for point in points}
    if unknown := names - declared():
        raise ValueError(f"unknown failpoint {', '.join(sorted(unknown))}")
    return ",".join(points)
