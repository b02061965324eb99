"""Ports of the local stack: fixed numbers below the ephemeral range, shifted by one offset."""

import socket
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Final

from services.cli.stack.errors import StackError

LOOPBACK: Final = "127.0.0.1"
MAX_PORT: Final = 32767
"""Above is the ephemeral range: the kernel could give a server's port to a client connection first."""
REPLICA_STEP: Final = 100
"""Distance between the ports of two hosts of one app."""
INFRA_PORTS: Final = {
    "postgres": 6432,
    "valkey": 6380,
    "placement": 6050,
    "placement health": 6051,
    "placement metrics": 6052,
    "placement raft": 6053,
    "scheduler": 6060,
    "scheduler health": 6061,
    "scheduler metrics": 6062,
    "scheduler etcd client": 6063,
    "scheduler etcd peer": 6064,
    "sentry": 6080,
    "sentry health": 6081,
    "sentry metrics": 6082,
    "openfga": 6070,
    "openfga grpc": 6071,
    "openfga metrics": 6072,
    "versitygw": 6075,
    "model": 6090,
}


@dataclass(frozen=True, slots=True)
class PortPlan:
    """The ports of one stack."""

    offset: int = 0

    def shifted(self, port: int) -> int:
        """A port plus the offset.

        Raises:
            StackError: the sum is outside 1024..32767.
        """
        shifted = port + self.offset
        if not 1024 <= shifted <= MAX_PORT:
            raise StackError(
                f"port {port} + offset {self.offset} = {shifted} is outside 1024..{MAX_PORT}: "
                "set another YOCASO_PORT_OFFSET"
            )
        return shifted

    def of(self, name: str) -> int:
        """A port of a server, by its name in `INFRA_PORTS`."""
        return self.shifted(INFRA_PORTS[name])

    def of_server(self, server: str) -> dict[str, int]:
        """All ports of a server, the main port first."""
        return {name: self.of(name) for name in INFRA_PORTS if name.split()[0] == server}


@dataclass(frozen=True, slots=True)
class HostPorts:
    """The ports of one host: the app's, then the sidecar's."""

    app: int
    http: int
    grpc: int
    internal: int
    metrics: int

    def of_replica(self, number: int, plan: PortPlan, app_port: int | None = None) -> "HostPorts":
        """The ports of the n-th host, counted from 1; `app_port` replaces the app's."""
        step = (number - 1) * REPLICA_STEP
        shifted = {name: plan.shifted(port + step) for name, port in asdict(self).items()}
        return HostPorts(**{**shifted, "app": app_port or shifted["app"]})


def is_listening(port: int) -> bool:
    """Whether a server accepts connections on a port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((LOOPBACK, port)) == 0


def _can_bind(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def ports_in_use(wanted: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """The ports that another process listens on, each with the name of the process that needs it."""
    return [(name, port) for name, port in wanted if not _can_bind(port)]


def require_free(wanted: Iterable[tuple[str, int]]) -> None:
    """Check that all ports are free.

    Raises:
        StackError: names each port in use, the process that needs it and the one that listens on it.
    """
    if taken := ports_in_use(wanted):
        lines = [f"  port {port} ({name}) is in use by {port_user(port)}" for name, port in taken]
        raise StackError(
            "\n".join(["ports in use:", *lines])
            + "\nStop these processes, or set YOCASO_PORT_OFFSET (for example 1000) to shift every port."
        )


def port_user(port: int) -> str:
    """The process that listens on a port, or "another process" without the permission to see it."""
    import psutil

    try:
        for connection in psutil.net_connections(kind="tcp"):
            listening = connection.status == psutil.CONN_LISTEN
            if listening and connection.laddr and connection.laddr.port == port and connection.pid:
                process = psutil.Process(connection.pid)
                return f"process {connection.pid} ({process.name()})"
    except (psutil.Error, PermissionError):
        pass
    return "another process"
