"""Starts the processes of a stack in order, each once its program is built, and waits until they are ready."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from services.cli.stack.builds import Builds
from services.cli.stack.errors import StackError
from services.cli.stack.listener import Listener, State
from services.cli.stack.name_resolution import has_hosts
from services.cli.stack.process import ProcessSpec, Stage
from services.cli.stack.supervisor import Supervisor

SIDECAR_PATIENCE: Final = 10.0
"""Seconds from the first answer of an app until its sidecar is restarted, if that is not ready: a start of daprd 1.18
hangs now and then, and another one succeeds."""
SIDECAR_RESTARTS: Final = 2
_POLL_SECONDS: Final = 0.05
_STATUS_SECONDS: Final = 0.25
_LOG_TAIL_LINES: Final = 5


@dataclass
class Startup:
    """Starts and awaits processes; `seconds` is the limit of each one from its start to its readiness."""

    specs: Mapping[str, ProcessSpec]
    supervisor: Supervisor
    builds: Builds
    programs: Mapping[str, Path]
    listener: Listener
    passes_probe: Callable[[str], bool]
    log: Callable[[str], Path]
    seconds: float
    patience: float = SIDECAR_PATIENCE
    _started: dict[str, float] = field(default_factory=dict[str, float])
    _ready: dict[str, float] = field(default_factory=dict[str, float])
    _restarts: dict[str, int] = field(default_factory=dict[str, int])
    _next_status: float = 0.0

    def run(self, registry: Path) -> None:
        """Start the servers, then the sidecars and apps.

        Raises:
            StackError: a process is not ready in time, or a program cannot be built.
        """
        self.start(self._names(Stage.INFRA))
        self.start(self._names(Stage.SIDECARS, Stage.APPS), registry)

    def start(self, names: Collection[str], registry: Path | None = None) -> None:
        """Start processes and return once they are ready and all programs are built.

        Sidecars that create the name `registry` concurrently can stay unregistered, so one of them starts first.
        """
        waiting = [name for name in names if name not in self._started]
        for name in waiting:
            if not self._is_built(name):
                self.listener.process(name, State.BUILDING)
        while waiting or not self._all_ready(names) or not self.builds.are_done:
            self._check()
            startable = [name for name in waiting if self._is_built(name)]
            for name in self._allowed(startable, registry):
                self._start(name)
                waiting.remove(name)
            self._look(names)
            time.sleep(_POLL_SECONDS)
        self.listener.building(None)

    def await_ready(self, names: Iterable[str]) -> None:
        """Wait until processes that were started elsewhere are ready."""
        awaited = set(names)
        for name in awaited:
            self._started.setdefault(name, time.monotonic())
        while not self._all_ready(awaited):
            self._check()
            self._look(awaited)
            time.sleep(_POLL_SECONDS)

    def _names(self, *stages: Stage) -> list[str]:
        return [name for name, spec in self.specs.items() if spec.stage in stages]

    def _is_built(self, name: str) -> bool:
        return all(
            self.builds.is_built(program)
            for program, path in self.programs.items()
            if str(path) in self.specs[name].argv
        )

    def _allowed(self, names: list[str], registry: Path | None) -> list[str]:
        """Those that may start now: of the sidecars only one until the registry has a host."""
        sidecars = [name for name in names if self.specs[name].stage is Stage.SIDECARS]
        if registry is None or not sidecars or has_hosts(registry):
            return names
        begun = any(name in self._started for name in self._names(Stage.SIDECARS))
        return [name for name in names if name not in sidecars] + sidecars[: 0 if begun else 1]

    def _all_ready(self, names: Iterable[str]) -> bool:
        return all(name in self._ready for name in names)

    def _check(self) -> None:
        if not self.supervisor.is_alive():
            raise StackError(f"supervisord ended; see {self.supervisor.log}")
        self.builds.check()
        if not self.builds.are_done and time.monotonic() > self._next_status:
            self._next_status = time.monotonic() + _STATUS_SECONDS
            self.listener.building(self.builds.status())

    def _start(self, name: str) -> None:
        self.supervisor.start(name)
        self._started[name] = time.monotonic()
        self.listener.process(name, State.STARTING)

    def _look(self, names: Iterable[str]) -> None:
        """Probe the processes that are not ready; fail if one is late."""
        for name in names:
            if name not in self._started or name in self._ready:
                continue
            now = time.monotonic()
            if self.passes_probe(name):
                self._ready[name] = now
                self.listener.process(name, State.READY, now - self._started[name])
            elif self._is_stuck(name, now):
                self._restart(name)
            elif now - self._started[name] > self.seconds:
                raise self._late(names)

    def _is_stuck(self, name: str, now: float) -> bool:
        """Whether a sidecar is not ready long after its app, and may be restarted."""
        if self.specs[name].stage is not Stage.SIDECARS:
            return False
        app = name.removesuffix("-daprd")
        since = max(self._ready.get(app, now), self._started[name])
        restarts = self._restarts.get(name, 0)
        return now - since > self.patience and restarts < SIDECAR_RESTARTS

    def _restart(self, name: str) -> None:
        number = self._restarts[name] = self._restarts.get(name, 0) + 1
        app = name.removesuffix("-daprd")
        self.listener.report(
            f"{name} is not ready {self.patience:.0f} s after {app} answers: "
            f"restarting it ({number} of {SIDECAR_RESTARTS})"
        )
        self.listener.process(name, State.RESTARTING)
        self.supervisor.stop(name)
        self._start(name)

    def _late(self, names: Iterable[str]) -> StackError:
        late = sorted(name for name in names if name not in self._ready)
        for name in late:
            self.listener.process(name, State.FAILED)
        what = f"timed out after {self.seconds:.0f} s waiting for all processes to be ready"
        return StackError("\n".join([what, *map(self._log_tail, late)]))

    def _log_tail(self, name: str) -> str:
        try:
            tail = self.log(name).read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
        except OSError:
            tail = []
        return "\n    ".join([f"  {name} is not ready; end of {self.log(name)}:", *tail])
