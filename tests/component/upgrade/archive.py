"""A stopped platform's state folder as a small archive, and a state folder made of one.

Postgres is kept as a dump of each database, the scheduler, Valkey and the registry of names as their files.
"""

import re
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from services.cli.stack import postgres
from services.cli.stack.environment import Environment
from services.cli.stack.ports import PortPlan
from services.cli.stack.state import StateFolder
from services.kit.clock import utc_now
from tests.component.upgrade.kept import Kept

DATABASES: Final = ("yocaso", "openfga")
FILES: Final = ("scheduler", "valkey", "names.db")
"""Kept as they are, of the folder `data`."""
PREALLOCATED: Final = (".tmp",)
"""Empty files that etcd creates again."""
_TIME: Final = re.compile(
    r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d(?::?\d\d)?\b)"
)
_BYTES: Final = re.compile(r"\\\\x([0-9a-f]+)")
_START_SECONDS: Final = 30.0


def pack(state: StateFolder, port: int, kept: Kept, target: Path) -> None:
    """Write the archive of a state folder whose processes have ended."""
    with tempfile.TemporaryDirectory() as folder:
        staged = Path(folder)
        (staged / "kept.json").write_text(kept.model_dump_json(indent=2))
        shutil.copy(state.secrets_file, staged)
        with postgres_alone(state, port) as client:
            for name in DATABASES:
                dump = ["pg_dump", "--create", "--clean", "--if-exists", name]
                (staged / f"{name}.sql").write_bytes(_output_of(client, dump))
        data = staged / "data"
        data.mkdir()
        for name in FILES:
            _copy(state.data / name, data / name)
        with tarfile.open(target, "w:xz", preset=9) as archive:
            archive.add(staged, arcname=".")


def unpack(source: Path, state: StateFolder, offset: int) -> Kept:
    """Make a state folder as if its processes had been killed now: every stored time moves by the archive's age."""
    state.create()
    with tempfile.TemporaryDirectory() as folder:
        staged = Path(folder)
        with tarfile.open(source) as archive:
            archive.extractall(staged, filter="data")
        stored = (staged / "kept.json").read_text()
        age = utc_now() - Kept.model_validate_json(stored).made_at
        age = timedelta(seconds=int(age.total_seconds()))
        shutil.copy(staged / "secrets.json", state.secrets_file)
        for name in FILES:
            _copy(staged / "data" / name, state.data / name)
        ports = PortPlan(offset)
        Environment.prepare(state, ports, [], with_model=False)
        with postgres_alone(state, ports.of("postgres")) as client:
            for name in DATABASES:
                script = staged / f"{name}.sql"
                script.write_text(moved(script.read_text(), age))
                restore = ["psql", "-q", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1"]
                _output_of(client, [*restore, "-d", "postgres", "-f", str(script)])
    return Kept.model_validate_json(moved(stored, age))


def moved(sql: str, by: timedelta) -> str:
    """A dump with every time moved, also those in JSON that is stored as bytes."""
    return _BYTES.sub(lambda found: _moved_bytes(found, by), _moved_text(sql, by))


def _moved_text(text: str, by: timedelta) -> str:
    return _TIME.sub(lambda found: _moved_time(found[0], by), text)


def _moved_time(text: str, by: timedelta) -> str:
    time_then = datetime.fromisoformat(text)
    return (time_then + by).isoformat(text[10]).replace("+00:00", "Z")


def _moved_bytes(found: re.Match[str], by: timedelta) -> str:
    value = bytes.fromhex(found[1])
    if not value.startswith(b"{"):
        return found[0]
    return r"\\x" + _moved_text(value.decode(), by).encode().hex()


@contextmanager
def postgres_alone(state: StateFolder, port: int) -> Iterator[Mapping[str, str]]:
    """Runs the server of a state folder without any other; yields the environment of its client programs."""
    password = state.load_secrets()["postgresPassword"]
    spec = postgres.spec(state, port, password)
    user, group = spec.user or (None, None)
    with (state.logs / "postgres.log").open("ab") as log:
        server = subprocess.Popen(
            spec.argv,
            cwd=spec.cwd,
            stdout=log,
            stderr=log,
            user=user,
            group=group,
            extra_groups=[] if spec.user else None,
        )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not postgres.is_accepting(port):
            assert server.poll() is None, f"Postgres ended; see {log.name}"
            assert time.monotonic() < deadline, f"Postgres does not accept; see {log.name}"
            time.sleep(0.05)
        yield postgres.client_env(port, password)
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(_START_SECONDS)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        ignore = shutil.ignore_patterns(*(f"*{suffix}" for suffix in PREALLOCATED))
        shutil.copytree(source, target, ignore=ignore)
    elif source.exists():
        shutil.copy(source, target)


def _output_of(env: Mapping[str, str], command: list[str]) -> bytes:
    """What a client program prints; its error text if it fails."""
    done = subprocess.run(command, env=dict(env), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout
