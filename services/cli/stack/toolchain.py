"""The Go toolchain: downloads modules, lists the packages of a program and compiles it."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.cli.stack.errors import StackError
from services.cli.stack.supervisor import launch_command, launch_spec

GO_HELP: Final = (
    "Go is not on PATH: install Go 1.24 or later from https://go.dev/dl/, needed to build {}"
)
_FLAGS: Final = ("-trimpath", "-gcflags=all=-dwarf=false")
"""Equal for all programs, so that they share compiled packages; without debug data they compile faster."""
_ENVIRONMENT: Final = {"CGO_ENABLED": "0"}
_LIST_FORMAT: Final = '{{.ImportPath}}\t{{.Dir}}\t{{.Stale}}\t{{.Standard}}\t{{join .GoFiles "\t"}}'
_ERROR_LINES: Final = 40
_SHOWN_ERRORS: Final = 2000


@dataclass(frozen=True, slots=True)
class GoProgram:
    """A main package in a module's folder, and its own flags."""

    name: str
    folder: Path
    package: str
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GoPackage:
    """A package that a program compiles; `size` are the bytes of its sources, stale is what Go has not cached."""

    path: str
    folder: str
    size: int
    is_stale: bool
    is_standard: bool


def require_go(programs: Iterable[str]) -> None:
    """Check that Go is installed.

    Raises:
        StackError: it is not; names the programs that need it.
    """
    if shutil.which("go") is None:
        raise StackError(GO_HELP.format(", ".join(programs)))


class Toolchain:
    """Runs `go` in process groups of its own; `cancel` kills them, as the kernel does when this process ends (Linux)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[int] = set()
        self.cancelled = threading.Event()

    def download(self, name: str, module: str) -> Path:
        """Download a module, whose checksum Go verifies; returns its folder."""
        answer = self._go(name, ("go", "mod", "download", "-json", module))
        return Path(json.loads(answer)["Dir"])

    def packages(self, program: GoProgram) -> list[GoPackage]:
        """All packages of a program, the program itself last; downloads their modules."""
        folder, flags = ("-C", str(program.folder)), (*_FLAGS, *program.flags)
        listing = ("go", "list", *folder, "-deps", *flags, "-f", _LIST_FORMAT, program.package)
        return [_package(line) for line in self._go(program.name, listing).splitlines()]

    def compile(self, name: str, folder: Path, paths: Sequence[str], on: "OnPackage") -> None:
        """Compile packages of a module into Go's cache."""
        self._go(name, ("go", "build", "-C", str(folder), "-v", *_FLAGS, *paths), on)

    def build(self, program: GoProgram, output: Path, on: "OnPackage") -> None:
        """Compile and link a program."""
        folder, flags = ("-C", str(program.folder)), (*_FLAGS, *program.flags)
        target = ("-o", str(output), program.package)
        self._go(program.name, ("go", "build", *folder, "-v", *flags, *target), on)

    def cancel(self) -> None:
        """Kill each running `go` with its compilers, and start no other."""
        self.cancelled.set()
        with self._lock:
            for group in self._running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)

    def _go(self, name: str, argv: tuple[str, ...], on: "OnPackage | None" = None) -> str:
        require_go([name])
        with tempfile.TemporaryDirectory(prefix="yocaso-go-") as scratch:
            launch = Path(scratch) / "go.json"
            launch.write_text(launch_spec(argv, Path.cwd(), _ENVIRONMENT, death_signal="KILL"))
            with (Path(scratch) / "output").open("w+") as output:
                process = self._begin(launch, output.fileno())
                errors = self._read(process, on)
                if process.returncode != 0:
                    raise StackError(f"building {name} failed in `go {argv[1]}`:\n{errors}")
                output.seek(0)
                return output.read()

    def _begin(self, launch: Path, output: int) -> subprocess.Popen[str]:
        with self._lock:
            if self.cancelled.is_set():
                raise StackError("the build was cancelled")
            process = subprocess.Popen(
                launch_command(launch, launch.with_suffix(".pid")),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                process_group=0,
            )
            self._running.add(process.pid)
            return process

    def _read(self, process: subprocess.Popen[str], on: "OnPackage | None") -> str:
        """Read standard error to its end; returns its last lines that are not packages."""
        errors: deque[str] = deque(maxlen=_ERROR_LINES)
        with process:
            assert process.stderr is not None
            for line in process.stderr:
                if on is None or not on(line.rstrip("\n")):
                    errors.append(line)
        with self._lock:
            self._running.discard(process.pid)
        return "".join(errors)[-_SHOWN_ERRORS:].strip()


OnPackage = Callable[[str], bool]
"""Called with each line of `go build -v`; whether it is the path of a package, whose compiler starts then."""


def _package(line: str) -> GoPackage:
    path, folder, stale, standard, *files = line.split("\t")
    size = 0
    for file in files:
        with contextlib.suppress(OSError):
            size += os.stat(os.path.join(folder, file)).st_size
    return GoPackage(path, folder, size, stale == "true", standard == "true")
