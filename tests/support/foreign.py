"""Apps of other people, in Go, TypeScript and Java: their programs in `tests/foreign`, built once, and their sidecars."""

import asyncio
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from services.cli.stack.binaries import default_cache
from services.cli.stack.ports import LOOPBACK
from services.cli.stack.process import Readiness
from services.cli.stack.supervisor import launch_command, launch_spec
from services.cli.stack.waiting import wait_until
from tests.support.go_tests import race_flags

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / "tests" / "foreign"
BUILT: Final = frozenset({"node_modules", "dist"})
"""What somebody who follows the guide builds in these folders."""
BUILD_SECONDS: Final = 300
START_SECONDS: Final = 30
RACE_FOUND: Final = 66
"""Exit status of a Go program in which the race detector found a race."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program that asks one question and prints JSON lines: how it is built in a copy of its folder, and started."""

    language: str
    build: tuple[tuple[str, ...], ...]
    command: tuple[str, ...]

    def path(self) -> Path:
        """The folder of the built program; a change of its sources or its build changes the name."""
        return default_cache() / f"foreign-{self.language}-{_hash(self)}"

    def built(self) -> Path:
        """The folder of the program, built if it is absent; concurrent processes build it once."""
        target = self.path()
        target.parent.mkdir(parents=True, exist_ok=True)
        with (target.parent / f".foreign-{self.language}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.exists():
                staged = target.with_name(f".{target.name}")
                shutil.rmtree(staged, ignore_errors=True)
                shutil.copytree(
                    FOLDER / self.language, staged, ignore=shutil.ignore_patterns(*BUILT)
                )
                for command in self.build:
                    _run(command, staged)
                staged.replace(target)
        return target


PROGRAMS: Final = (
    Program(
        "go",
        (("go", "vet", "."), ("go", "build", *race_flags(), "-o", "ask", ".")),
        ("./ask",),
    ),
    Program(
        "typescript",
        (
            ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"),
            ("npm", "run", "--silent", "build"),
        ),
        ("node", "dist/ask.js"),
    ),
    Program(
        "java",
        (("javac", "--release", "17", "-Xlint:all", "-Werror", "-encoding", "UTF-8", "Ask.java"),),
        ("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "Ask"),
    ),
)


def _hash(program: Program) -> str:
    folder = FOLDER / program.language
    digest = hashlib.sha256(repr(program.build).encode())
    files = (path for path in folder.rglob("*") if path.is_file())
    for file in sorted(path for path in files if not BUILT & {*path.parts}):
        digest.update(str(file.relative_to(folder)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _run(command: Sequence[str], folder: Path) -> None:
    if shutil.which(command[0]) is None:
        raise RuntimeError(
            f"{command[0]} is not on PATH: the tests need Go, Node with npm and Java 17"
        )
    built = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
    )
    if built.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{built.stdout}{built.stderr}")


class ForeignSidecar:
    """The sidecar of an app beside a running stack, as `yocaso sidecar` starts it."""

    def __init__(self, state: Path, app_id: str, port: int) -> None:
        self.app_id = app_id
        self.port = port
        self.token = hashlib.sha256(app_id.encode()).hexdigest()
        self._state = state
        self._log = state / "logs" / f"{app_id}-daprd.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What Dapr sets for the app of the sidecar."""
        return {"DAPR_HTTP_PORT": str(self.port), "DAPR_API_TOKEN": self.token}

    def url_of(self, app_id: str, path: str) -> str:
        """The URL by which its app calls a path of another app."""
        return f"http://{LOOPBACK}:{self.port}/v1.0/invoke/{app_id}/method{path}"

    def start(self) -> None:
        """Start the sidecar; `wait_ready` waits until it answers."""
        run = self._state / "run"
        options = ("--state", str(self._state), "--http-port", str(self.port))
        command = (sys.executable, "-m", "services.cli.main", "sidecar", self.app_id, *options)
        launch = run / f"{self.app_id}-launch.json"
        env = {"DAPR_API_TOKEN": self.token}
        launch.write_text(launch_spec(command, ROOT, env, death_signal="KILL"))
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                launch_command(launch, run / f"{self.app_id}-daprd.pid"), stdout=log, stderr=log
            )

    def wait_ready(self) -> None:
        """Wait until the sidecar answers."""
        ready = Readiness(self.port, "/v1.0/healthz", {"dapr-api-token": self.token})
        wait_until(ready.is_ready, START_SECONDS, f"{self.app_id}-daprd", self._require_running)

    def stop(self, *, kill: bool = False) -> None:
        """End the sidecar and wait for its end."""
        if self._process is not None:
            self._process.kill() if kill else self._process.terminate()
            self._process.wait(15)
            self._process = None

    def _require_running(self) -> None:
        if self._process is None or self._process.poll() is not None:
            tail = self._log.read_text(errors="replace")[-2000:]
            raise AssertionError(f"the sidecar of {self.app_id} ended:\n{tail}")


@contextmanager
def running_sidecars(
    state: Path, first_port: int, app_ids: Sequence[str]
) -> Iterator[dict[str, ForeignSidecar]]:
    """Ready sidecars of foreign apps, by app-id."""
    sidecars = {app: ForeignSidecar(state, app, first_port + at) for at, app in enumerate(app_ids)}
    with ExitStack() as stops:
        for sidecar in sidecars.values():
            stops.callback(sidecar.stop)
            sidecar.start()
        for sidecar in sidecars.values():
            sidecar.wait_ready()
        yield sidecars


class Asking:
    """A running program: the lines that it prints."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.lines: list[dict[str, Any]] = []

    async def next_line(self, seconds: float = 30) -> dict[str, Any] | None:
        """The next line, None at the end."""
        assert self._process.stdout is not None
        raw = await asyncio.wait_for(self._process.stdout.readline(), seconds)
        if not raw:
            return None
        self.lines.append(json.loads(raw))
        return self.lines[-1]

    async def until(self, type_: str) -> dict[str, Any]:
        """Read on to an event of this type."""
        while line := await self.next_line():
            if line.get("type") == type_:
                return line
        raise AssertionError(f"no {type_} in {self.lines}: {await self._errors()}")

    async def finish(self) -> list[dict[str, Any]]:
        """Read to the end; all lines."""
        while await self.next_line():
            pass
        if await self._process.wait() == RACE_FOUND:
            raise AssertionError(await self._errors())
        return self.lines

    @property
    def events(self) -> list[tuple[str, str, str]]:
        """The events printed: id, type and data."""
        return [(line["id"], line["type"], line["data"]) for line in self.lines if "type" in line]

    async def _errors(self) -> str:
        assert self._process.stderr is not None
        return (await self._process.stderr.read()).decode(errors="replace")


@asynccontextmanager
async def asking(
    program: Program, way: str, text: str, env: Mapping[str, str]
) -> AsyncIterator[Asking]:
    """Run a program; it is ended at the end of the context."""
    process = await asyncio.create_subprocess_exec(
        *program.command,
        way,
        text,
        cwd=program.built(),
        env={**os.environ, "GORACE": "halt_on_error=1", **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=1 << 20,
    )
    try:
        yield Asking(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
