"""App manifests: one declaration per app, from which sidecar configuration, routes and documents are generated."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from services.kit.bindings import AnyBinding
from services.kit.contract import AnyMethod, RpcService
from services.kit.dead_letters import dead_letters_of
from services.kit.jobs import AnyJob
from services.kit.references import AnyActivity, AnyWorkflow
from services.kit.topics import AnyTopic

APP_PORT_BASE: Final = 7090
SIDECAR_HTTP_PORT_BASE: Final = 3500
SIDECAR_GRPC_PORT_BASE: Final = 4500
SIDECAR_INTERNAL_PORT_BASE: Final = 5500
METRICS_PORT_BASE: Final = 9500
OBJECTS: Final = "objects"
"""In `components`: the app uses `Platform.objects`, whose server the local stack starts; it is no component of Dapr."""


class Language(StrEnum):
    """The language of an app; it decides how the app is built, checked and started."""

    PYTHON = "Python"
    GO = "Go"


@dataclass(frozen=True, slots=True)
class Secret:
    """An environment variable with a secret, which the local stack generates once and stores under `name`."""

    name: str


@dataclass(frozen=True, slots=True)
class Server:
    """An environment variable with the address of a server of the local stack, set if that server was started.

    `{url}` in `value` is the server's address. `overridable`: a value set by the user wins.
    """

    name: str
    value: str = "{url}"
    overridable: bool = False


Variable = Secret | Server


@dataclass(frozen=True, slots=True, eq=False)
class App:
    """One app: a folder, an app-id, a deployment, a sidecar.

    `number` is the offset of its ports: app 7090 + `number`, sidecar HTTP 3500 + `number`. `calls` are the methods that
    it may call, those with a scope for the users that it serves; listing one of its own lets operators call it through
    the app's sidecar. `workflows` are those of its domain, in whatever app they are hosted. `publishes` and `subscribes`
    are topics. `person_scopes` are scopes that an API key cannot have.
    """

    id: str
    purpose: str
    number: int
    language: Language = Language.PYTHON
    package: str = ""
    """Its Python package; default `services.<id>`."""
    command: tuple[str, ...] = ()
    """The start command; by default kit serves a Python app."""
    app_port: int | None = None
    services: tuple[RpcService, ...] = ()
    actors: tuple[str, ...] = ()
    workflows: tuple[AnyWorkflow, ...] = ()
    activities: tuple[AnyActivity, ...] = ()
    publishes: tuple[AnyTopic, ...] = ()
    subscribes: tuple[AnyTopic, ...] = ()
    jobs: tuple[AnyJob, ...] = ()
    bindings: tuple[AnyBinding, ...] = ()
    calls: tuple[AnyMethod, ...] = ()
    components: tuple[str, ...] = ()
    person_scopes: tuple[str, ...] = ()
    public_paths: tuple[str, ...] = ()
    """Other paths that the edge may GET."""
    owns: tuple[str, ...] = ()
    """The data that it owns, as text for the services map."""
    variables: Mapping[str, Variable] = field(default_factory=dict[str, Variable])
    """Environment variables that the local stack sets for this app only."""
    is_edge: bool = False
    """Whether it is the edge: the app that clients call, and that authenticates users."""

    def __post_init__(self) -> None:
        """Add what follows: components; an app that subscribes serves its dead letters, and its operators call them."""
        broker = ("pubsub",) if self.publishes or self.subscribes else ()
        self._add("components", *(binding.name for binding in self.bindings), *broker)
        if self.subscribes:
            letters = dead_letters_of(self.id)
            self._add("services", letters)
            self._add("calls", *letters.methods)

    def _add(self, name: str, *values: object) -> None:
        """Add values to a field, each once: `dataclasses.replace` adds them again."""
        known: tuple[object, ...] = getattr(self, name)
        added = tuple(value for value in values if all(value != each for each in known))
        object.__setattr__(self, name, known + added)

    @property
    def port(self) -> int:
        return self.app_port or APP_PORT_BASE + self.number

    @property
    def module(self) -> str:
        return self.package or f"services.{self.id}"

    @property
    def folder(self) -> str:
        """The folder, relative to the repository root."""
        return self.module.replace(".", "/")

    @property
    def methods(self) -> tuple[AnyMethod, ...]:
        return tuple(method for service in self.services for method in service.methods)

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes of its methods, in declaration order."""
        return tuple(dict.fromkeys(method.scope for method in self.methods if method.scope))

    @property
    def streams(self) -> bool:
        """Whether one of its methods is a stream."""
        return any(method.is_stream for method in self.methods)
