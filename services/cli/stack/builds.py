"""Builds several Go programs at once, with one measure of progress over all of them."""

import contextlib
import fcntl
import functools
import itertools
import os
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from typing_extensions import override

from services.cli.stack.toolchain import GoPackage, GoProgram, Toolchain, require_go

_LANES: Final = 2
"""Programs in work at once: one links, which takes one core, while another compiles."""
_DOWNLOADS: Final = 4
_LINK_SHARE: Final = 0.04
"""Work of linking a program, as a share of the size of its packages."""
_CORE_RATE: Final = 250_000
"""Bytes of source that one core compiles in a second: the first estimate of the remaining time, until measured."""
_MEASURED: Final = 20_000_000
"""Bytes after which the measured rate weighs as much as the first estimate."""
_STANDARD_LIBRARY: Final = "Go's standard library"
_LOCK_SECONDS: Final = 0.2
_REPORT_SECONDS: Final = 15.0
_CLOSE_SECONDS: Final = 5.0

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Program:
    """A program to build into `target`; `source` finds its sources and may write files into the given folder."""

    name: str
    target: Path
    source: Callable[[Toolchain, Path], GoProgram]


@dataclass(frozen=True, slots=True)
class BuildStatus:
    """Progress over all programs. `current` is what is in work; `seconds_left` is None before the plan is known."""

    fraction: float
    seconds_left: float | None
    current: str
    done: int
    total: int

    @property
    def summary(self) -> str:
        """Programs, share of the work, and time left."""
        left = "" if self.seconds_left is None else f", {_duration(self.seconds_left)} left"
        return f"built {self.done} of {self.total} programs, {self.fraction:.0%}{left}"

    @override
    def __str__(self) -> str:
        return f"{self.summary}: {self.current}"


def _duration(seconds: float) -> str:
    return f"about {seconds / 60:.0f} min" if seconds >= 90 else f"about {seconds:.0f} s"


class _Measure:
    """The work of all programs, in bytes of source; a package of several programs counts once."""

    def __init__(self, programs: Sequence[Program]) -> None:
        self._lock = threading.Lock()
        self._total = len(programs)
        self._plans: dict[str, dict[str, GoPackage]] = {}
        self._links: dict[str, float] = {}
        self._sizes: dict[str, int] = {}
        self._compiled: set[str] = set()
        self._running: dict[str, deque[str]] = {}
        self._done: set[str] = set()
        self._step = "looking for sources"
        self._began: float | None = None

    def plan(self, name: str, found: Sequence[GoPackage]) -> None:
        with self._lock:
            self._plans[name] = {package.path: package for package in found}
            self._links[name] = sum(package.size for package in found) * _LINK_SHARE
            self._sizes.update({each.folder: each.size for each in found if each.is_stale})

    def order(self) -> list[str]:
        """Programs with the most work first: the longest should not be the last to begin."""
        with self._lock:
            return sorted(self._plans, key=lambda name: -self._links[name])

    def standard(self) -> list[str]:
        """The packages of Go's standard library that some program needs."""
        with self._lock:
            found = [each for plan in self._plans.values() for each in plan.values()]
            return sorted({each.path for each in found if each.is_standard} - {"unsafe"})

    def begin(self, step: str) -> None:
        """Count time from the first call; `step` is shown while no program is in work."""
        with self._lock:
            self._began, self._step = self._began or time.monotonic(), step

    def compiling(self, name: str, path: str) -> bool:
        """Note that a package is compiled; whether it is one."""
        with self._lock:
            package = next((plan[path] for plan in self._plans_of(name) if path in plan), None)
            if package is not None:
                self._running.setdefault(name, deque(maxlen=os.cpu_count())).append(package.folder)
                self._compiled.add(package.folder)
            return package is not None

    def end(self, name: str) -> None:
        """Note that a program is built, or was found built."""
        with self._lock:
            self._running.pop(name, None)
            if name in self._plans:
                self._done.add(name)
                self._compiled.update(each.folder for each in self._plans[name].values())

    def status(self) -> BuildStatus:
        with self._lock:
            open_packages = {folder for recent in self._running.values() for folder in recent}
            finished = self._compiled - open_packages
            work = sum(self._sizes.values()) + sum(self._links.values())
            done = sum(size for folder, size in self._sizes.items() if folder in finished)
            done += sum(self._links[name] for name in self._done)
            fraction = done / work if work else 0.0
            current = ", ".join(map(self._activity, self._running)) or self._step
            return BuildStatus(
                fraction, self._left(work, done), current, len(self._done), self._total
            )

    def _plans_of(self, name: str) -> list[dict[str, GoPackage]]:
        return [self._plans[name]] if name in self._plans else list(self._plans.values())

    def _left(self, work: float, done: float) -> float | None:
        if self._began is None:
            return None
        expected = _CORE_RATE * (os.cpu_count() or 1)
        seconds = time.monotonic() - self._began + _MEASURED / expected
        return max(0.0, work - done) * seconds / (done + _MEASURED)

    def _activity(self, name: str) -> str:
        if not self._running[name]:
            return name
        folder, plan = self._running[name][-1], self._plans_of(name)
        path = next(each.path for one in plan for each in one.values() if each.folder == folder)
        is_main = name in self._plans and path == next(reversed(self._plans[name]))
        return f"{name} (linking)" if is_main else f"{name} ({path})"


class Builds:
    """Builds programs in the background; a file lock makes concurrent commands build each once."""

    def __init__(self, programs: Sequence[Program], say: Progress) -> None:
        self._programs = {program.name: program for program in programs}
        self._say = say
        self._measure = _Measure(programs)
        self._toolchain = Toolchain()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="builds", daemon=True)

    def require_go(self) -> None:
        """Check that Go is there if a program has to be built.

        Raises:
            StackError: it is not.
        """
        if self._programs:
            require_go(self._programs)

    def begin(self) -> None:
        """Start building."""
        if self._programs:
            self._thread.start()

    @property
    def are_done(self) -> bool:
        """Whether every program is built."""
        return all(program.target.exists() for program in self._programs.values())

    def is_built(self, name: str) -> bool:
        """Whether a program is built, or was not to be."""
        return name not in self._programs or self._programs[name].target.exists()

    def check(self) -> None:
        """Raise the failure of a build, if any."""
        if self._failure is not None:
            raise self._failure

    def status(self) -> BuildStatus:
        return self._measure.status()

    def wait(self) -> None:
        """Build and return once all programs are built; reports progress every 15 s."""
        self.begin()
        try:
            while self._thread.is_alive():
                self._thread.join(_REPORT_SECONDS)
                if self._thread.is_alive():
                    self._say(str(self.status()))
        except BaseException:
            self.cancel()
            self.close()
            raise
        self.check()

    def cancel(self) -> None:
        """Kill the compilers and start no other."""
        self._toolchain.cancel()

    def close(self) -> None:
        """After `cancel`, wait until the files of the builds are deleted."""
        if self._thread.is_alive():
            self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        try:
            with tempfile.TemporaryDirectory(prefix="yocaso-build-") as scratch:
                self._build_all(Path(scratch))
        except BaseException as error:  # `check` raises it again in the thread that waits
            self._failure = self._failure or error

    def _build_all(self, scratch: Path) -> None:
        programs = list(self._programs.values())
        with ThreadPoolExecutor(_DOWNLOADS, "sources") as pool:
            found = pool.map(self._plan, programs, itertools.repeat(scratch))
            sources = dict(zip(self._programs, found, strict=True))
        if len(programs) > 1:
            self._build_standard_library(next(iter(sources.values())).folder)
        self._measure.begin("starting the compilers")
        with ThreadPoolExecutor(_LANES, "builds") as pool:
            for name in self._measure.order():
                pool.submit(self._guarded, self._programs[name], sources[name])

    def _plan(self, program: Program, scratch: Path) -> GoProgram:
        source = program.source(self._toolchain, scratch)
        self._measure.plan(program.name, self._toolchain.packages(source))
        return source

    def _build_standard_library(self, folder: Path) -> None:
        """Compile first what all programs share: builds that run at once would each compile it."""
        self._measure.begin(_STANDARD_LIBRARY)
        self._toolchain.compile(
            _STANDARD_LIBRARY, folder, self._measure.standard(), self._listener(_STANDARD_LIBRARY)
        )
        self._measure.end(_STANDARD_LIBRARY)

    def _guarded(self, program: Program, source: GoProgram) -> None:
        """Build; the first failure ends the other builds, whose failures do not count."""
        try:
            if not self._toolchain.cancelled.is_set():
                self._build(program, source)
        except BaseException as error:
            if not self._toolchain.cancelled.is_set():
                self._failure = error
            self._toolchain.cancel()

    def _build(self, program: Program, source: GoProgram) -> None:
        target = program.target
        target.parent.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        with self._locked(target):
            is_missing = not target.exists()
            if is_missing:
                self._say(f"building {target.name}")
                self._link(source, target)
        self._measure.end(program.name)
        if is_missing:
            self._say(f"built {target.name} in {time.monotonic() - began:.0f} s")

    def _link(self, source: GoProgram, target: Path) -> None:
        """Build under a staging name, then rename: a killed build leaves no partial program."""
        staged = target.with_name(f".{target.name}.new")
        try:
            self._toolchain.build(source, staged, self._listener(source.name))
            staged.replace(target)
        finally:
            staged.unlink(missing_ok=True)

    def _listener(self, name: str) -> Callable[[str], bool]:
        return functools.partial(self._measure.compiling, name)

    @contextlib.contextmanager
    def _locked(self, target: Path) -> Iterator[None]:
        with (target.parent / f".{target.name}.lock").open("w") as lock:
            is_first = True
            while not self._toolchain.cancelled.is_set():
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if is_first:
                        self._say(f"waiting for another command to build {target.name}")
                    is_first = False
                    self._toolchain.cancelled.wait(_LOCK_SECONDS)
            yield
