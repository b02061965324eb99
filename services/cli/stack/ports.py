"""Which port belongs to what: fixed numbers below the ephemeral range, shifted by one offset."""

import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from services.cli.stack.errors import StackError

LOOPBACK: Final = "127.0.0.1"
MAX_PORT: Final = 32767
"""Ports above are handed out by the kernel to clients, so a server may find its own taken."""

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
    "model": 6090,
}


@dataclass(frozen=True, slots=True)
class PortPlan:
    """The ports of one stack."""

    offset: int = 0

    def shifted(self, port: int) -> int:
        """A port of `dapr.yaml` or of a server, moved by the offset."""
        moved = port + self.offset
        if not 1024 <= moved <= MAX_PORT:
            raise StackError(
                f"port {port} + offset {self.offset} = {moved} is outside 1024..{MAX_PORT}: "
                "choose another YOCASO_PORT_OFFSET"
            )
        return moved

    def of(self, name: str) -> int:
        """The port of a server."""
        return self.shifted(INFRA_PORTS[name])


def is_listening(port: int, host: str = LOOPBACK) -> bool:
    """Whether something accepts connections."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((host, port)) == 0


def _can_bind(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def busy(wanted: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """The ports that another process holds, with what wanted them."""
    return [(name, port) for name, port in wanted if not _can_bind(port)]


def require_free(wanted: Iterable[tuple[str, int]]) -> None:
    """Refuse to start while a port is taken, naming each port, what wanted it and, if it can be seen, its holder."""
    taken = busy(wanted)
    if taken:
        lines = [
            f"  {port} is wanted by {name}, but {holder(port)} holds it" for name, port in taken
        ]
        raise StackError(
            "ports in use:\n"
            + "\n".join(lines)
            + "\nStop what holds them, or set YOCASO_PORT_OFFSET (for example 1000) to shift every port."
        )


def holder(port: int) -> str:
    """Who listens on a port, as far as this user may see."""
    import psutil

    try:
        for connection in psutil.net_connections(kind="tcp"):
            local = connection.laddr
            if (
                connection.status == psutil.CONN_LISTEN
                and local
                and local.port == port
                and connection.pid
            ):
                process = psutil.Process(connection.pid)
                return f"process {connection.pid} ({process.name()})"
    except (psutil.Error, PermissionError):
        pass
    return "another process"
