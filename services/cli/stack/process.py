"""What a supervised process is: how it is started, when it is ready, how it is stopped."""

import http.client
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Final

from services.cli.stack.ports import LOOPBACK, is_listening


class Stage(IntEnum):
    """Higher stages start later and stop earlier."""

    INFRA = 10
    SIDECARS = 20
    APPS = 30


SMALL_HEAP: Final = {"GOGC": "50"}
"""Of programs in Go: collect garbage sooner. On a laptop memory is what they cost; in a sidecar the garbage may grow in
proportion to what open streams hold."""
STOP_SECONDS = {Stage.APPS: 4, Stage.SIDECARS: 2, Stage.INFRA: 3}
"""How long a stage may take before it is killed; together less than the 10 s that a stop may last."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """Ready when the port accepts and, with a path, answers 2xx."""

    port: int
    path: str = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    def holds(self) -> bool:
        """Whether it is ready now."""
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
    """One process of the stack."""

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
    """What the kernel sends when the supervisor dies."""
    on_console: bool = False
