"""Declares RPC contracts: messages, methods and services. Routes, OpenAPI and edge configuration are derived from them."""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Generic, TypedDict, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel
from typing_extensions import Unpack

from services.kit.errors import AnyErrorCode

TIMEOUT_SECONDS: Final = 30.0
"""Default time limit of a method."""
INTERNAL_TIMEOUT_SECONDS: Final = 10.0
"""Default time limit of an internal method: its caller is itself being waited for."""


class Message(BaseModel):
    """A wire message in the protobuf JSON mapping.

    Output: lowerCamelCase without null fields. Input: lowerCamelCase or snake_case; unknown fields are rejected.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        ser_json_inf_nan="strings",
    )

    def to_json(self) -> bytes:
        return self.model_dump_json(by_alias=True, exclude_none=True).encode()


def _int_from_json(value: Any) -> Any:
    return int(value) if isinstance(value, str) and re.fullmatch(r"-?\d{1,19}", value) else value


def _require_zone(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("a timestamp needs a time zone, such as Z")
    return value.astimezone(UTC)


def rfc3339(value: datetime) -> str:
    """A timestamp as the wire shows it: UTC with `Z`, microseconds only where there are any."""
    text = value.astimezone(UTC).isoformat(timespec="microseconds")
    return text.replace("+00:00", "Z").replace(".000000Z", "Z")


Int64 = Annotated[
    int,
    BeforeValidator(_int_from_json),
    Field(ge=-(2**63), le=2**63 - 1),
    PlainSerializer(str, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "int64", "pattern": r"^-?\d{1,19}$"}),
]
"""A 64-bit integer: written as a string in JSON, read from a string or a number."""

Timestamp = Annotated[
    datetime,
    AfterValidator(_require_zone),
    PlainSerializer(rfc3339, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""An instant: RFC 3339 with `Z` in JSON."""


class Empty(Message):
    """A message without fields."""


class StreamEvent(Message):
    """An event of a stream; `seq`, its SSE id, increases within the stream."""

    seq: Int64

    @property
    def is_terminal(self) -> bool:
        """Whether it is the last event of its stream."""
        raise NotImplementedError


Req = TypeVar("Req", bound=Message)
Res = TypeVar("Res", bound=Message)
Ev = TypeVar("Ev", bound=StreamEvent)


@dataclass(frozen=True, slots=True)
class RpcMethod(Generic[Req, Res]):
    """One method of a service, declared by `service.unary` or `service.stream`.

    Exactly one of `scope` (a signed-in user whose token has it), `public` (no sign-in, through the edge) and `internal`
    (apps that list the method in their manifest; no edge route) controls access. `idempotent` accepts an
    `Idempotency-Key`. `completes`: it finishes work that an earlier call began, so load shedding never rejects it.
    `waits`: its duration depends on other work, so the edge's load shedding does not measure it. `timeout_seconds` is the
    time limit of its callers: the edge, and apps by `RpcClient`.
    """

    service: "RpcService" = field(repr=False)
    name: str
    request: type[Req]
    response: type[Res]
    summary: str
    raises: tuple[AnyErrorCode, ...] = ()
    is_stream: bool = False
    idempotent: bool = False
    scope: str | None = None
    public: bool = False
    internal: bool = False
    timeout_seconds: float = TIMEOUT_SECONDS
    completes: bool = False
    waits: bool = False

    def __post_init__(self) -> None:
        if (self.scope is not None) + self.public + self.internal != 1:
            raise TypeError(f"{self.name}: set exactly one of scope, public and internal")

    @property
    def path(self) -> str:
        """The path in the app: `/yocaso.auth.v1.ApiKeyService/CreateApiKey`."""
        return f"/{self.service.name}/{self.name}"

    @property
    def edge_path(self) -> str:
        """The path at the edge: `/api/v1/auth/api-key/create-api-key`."""
        short = self.service.short_name.removesuffix("Service")
        return f"/api/v1/{self.service.app_id}/{kebab(short)}/{kebab(self.name)}"

    @property
    def verbs(self) -> tuple[str, ...]:
        """The HTTP verbs: a stream also accepts GET, with the request's fields in the query."""
        return ("POST", "GET") if self.is_stream else ("POST",)


AnyMethod = RpcMethod[Any, Any]


class MethodOptions(TypedDict, total=False):
    """Optional properties of a method; see `RpcMethod`."""

    raises: tuple[AnyErrorCode, ...]
    idempotent: bool
    scope: str
    public: bool
    internal: bool
    timeout_seconds: float
    completes: bool
    waits: bool


class RpcService:
    """A set of methods of one app, named `yocaso.<app>.v1.<Name>Service`."""

    def __init__(self, name: str, summary: str) -> None:
        self.name = name
        self.summary = summary
        self._methods: dict[str, AnyMethod] = {}

    @property
    def app_id(self) -> str:
        return self.name.split(".")[1]

    @property
    def short_name(self) -> str:
        """The name without its package: `ApiKeyService`."""
        return self.name.rsplit(".", 1)[-1]

    @property
    def methods(self) -> tuple[AnyMethod, ...]:
        return tuple(self._methods.values())

    def unary(
        self,
        name: str,
        request: type[Req],
        response: type[Res],
        summary: str,
        **options: Unpack[MethodOptions],
    ) -> RpcMethod[Req, Res]:
        """Declare a method with one response."""
        if options.get("internal"):
            options.setdefault("timeout_seconds", INTERNAL_TIMEOUT_SECONDS)
        return self._declare(RpcMethod(self, name, request, response, summary, **options))

    def stream(
        self,
        name: str,
        request: type[Req],
        response: type[Ev],
        summary: str,
        **options: Unpack[MethodOptions],
    ) -> RpcMethod[Req, Ev]:
        """Declare a method whose response is a stream of server-sent events, each a `response`."""
        method = RpcMethod(self, name, request, response, summary, is_stream=True, **options)
        return self._declare(method)

    def __getitem__(self, method: str) -> AnyMethod:
        return self._methods[method]

    def _declare(self, method: RpcMethod[Req, Res]) -> RpcMethod[Req, Res]:
        if method.name in self._methods:
            raise TypeError(f"{self.name} has two methods {method.name}")
        self._methods[method.name] = method
        return method


def kebab(name: str) -> str:
    """`SendMessage` → `send-message`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()
