"""What one app is, in one value: the sidecar's configuration, routes, documents and lists of apps follow from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from services.kit.contract import AnyMethod, RpcService
from services.kit.references import AnyActivity, AnyWorkflow

APP_PORTS: Final = 7090
SIDECAR_HTTP_PORTS: Final = 3500
SIDECAR_GRPC_PORTS: Final = 4500
SIDECAR_INTERNAL_PORTS: Final = 5500
METRICS_PORTS: Final = 9500


class Language(StrEnum):
    """What an app is written in: it decides how the app is built, checked and started."""

    PYTHON = "Python"
    GO = "Go"


@dataclass(frozen=True, slots=True)
class Secret:
    """A variable that holds a secret; the local stack generates one under this name and keeps it."""

    name: str


@dataclass(frozen=True, slots=True)
class Server:
    """A variable that follows from a server of the local stack; it is set only where that server was started.

    `{url}` in `value` is the server's address. `replaceable`: a value that the user has set wins.
    """

    name: str
    value: str = "{url}"
    replaceable: bool = False


Variable = Secret | Server


@dataclass(frozen=True, slots=True, eq=False)
class App:
    """One app: a folder, an app-id, a deployment, a sidecar.

    `number` gives the ports: the app's is 7090 + `number`, its sidecar's HTTP port 3500 + `number`. `calls` are the
    methods that it may call; one of its own is for operators, who call it through the app's own sidecar. `workflows`
    are those that its domain needs, whichever app hosts them. `person_scopes` are those of its scopes that no API key
    may be given.
    """

    id: str
    purpose: str
    number: int
    language: Language = Language.PYTHON
    package: str = ""
    """Its folder, as Python names it; `services.<id>` unless said otherwise."""
    command: tuple[str, ...] = ()
    """What starts it; a Python app is served by kit unless said otherwise."""
    app_port: int | None = None
    services: tuple[RpcService, ...] = ()
    actors: tuple[str, ...] = ()
    workflows: tuple[AnyWorkflow, ...] = ()
    activities: tuple[AnyActivity, ...] = ()
    calls: tuple[AnyMethod, ...] = ()
    components: tuple[str, ...] = ()
    person_scopes: tuple[str, ...] = ()
    public_paths: tuple[str, ...] = ()
    """Paths beside its RPC methods that the edge may GET."""
    owns: tuple[str, ...] = ()
    """The data that it owns, in words, for the map."""
    variables: Mapping[str, Variable] = field(default_factory=dict[str, Variable])
    """Environment variables that the local stack sets for it, beside those that every app has."""
    faces_clients: bool = False
    """Whether it is the edge: it alone is called from outside, and vouches for users."""

    @property
    def port(self) -> int:
        """Where the app listens."""
        return self.app_port or APP_PORTS + self.number

    @property
    def module(self) -> str:
        """The Python package."""
        return self.package or f"services.{self.id}"

    @property
    def folder(self) -> str:
        """The folder, from the top of the repository."""
        return self.module.replace(".", "/")

    @property
    def methods(self) -> tuple[AnyMethod, ...]:
        """Every method of its services."""
        return tuple(method for service in self.services for method in service.methods)

    @property
    def scopes(self) -> tuple[str, ...]:
        """Every scope that one of its methods needs, in the order of the methods."""
        return tuple(dict.fromkeys(method.scope for method in self.methods if method.scope))

    @property
    def streams(self) -> bool:
        """Whether one of its methods answers with a stream."""
        return any(method.is_stream for method in self.methods)
