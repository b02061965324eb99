"""Specification of a process of the stack."""

import http.client
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Final

from services.cli.stack.ports import LOOPBACK, is_listening


class Stage(IntEnum):
    """The start order of processes; they stop in reverse."""

    INFRA = 10
    SIDECARS = 20
    APPS = 30


SMALL_HEAP: Final = {"GOGC": "50"}
"""Go programs: collects garbage at half the default heap growth, since memory is scarce on a laptop and a sidecar's
garbage grows with its open streams."""
STOP_SECONDS: Final = {Stage.APPS: 4, Stage.SIDECARS: 2, Stage.INFRA: 3}
"""Seconds from the stop signal to SIGKILL; the sum stays below 10 s, the limit for a whole stop."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """Readiness probe: the port accepts connections and, with a `path`, answers 2xx."""

    port: int
    path: str = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    def is_ready(self) -> bool:
        """Probe once."""
        if not self.path:
            return is_listening(self.port)
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=2)
        try:
            connection.request("GET", self.path, headers=dict(self.headers))
            return 200 <= connection.getresponse().status < 300
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """How to start, probe and stop one process."""

    name: str
    stage: Stage
    argv: tuple[str, ...]
    ready: Readiness
    ports: Mapping[str, int]
    cwd: Path
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    user: tuple[int, int] | None = None
    stop_signal: str = "TERM"
    death_signal: str = "KILL"
    """Sent by the kernel when supervisord dies (Linux only)."""
    on_console: bool = False
