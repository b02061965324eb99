"""How a contract is declared: messages, methods and services; routers, OpenAPI and the edge follow it."""

import base64
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypedDict, TypeVar

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


class Message(BaseModel):
    """A wire message by the protobuf JSON mapping.

    Out: lowerCamelCase, absent fields left out. In: lowerCamelCase or snake_case, unknown fields refused.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        ser_json_inf_nan="strings",
    )

    def to_json(self) -> bytes:
        """The wire form."""
        return self.model_dump_json(by_alias=True, exclude_none=True).encode()


def _int_from_json(value: Any) -> Any:
    return int(value) if isinstance(value, str) and re.fullmatch(r"-?\d{1,19}", value) else value


def _require_zone(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("a timestamp needs a time zone, such as Z")
    return value.astimezone(UTC)


def _rfc3339(value: datetime) -> str:
    text = value.astimezone(UTC).isoformat(timespec="microseconds")
    return text.replace("+00:00", "Z").replace(".000000Z", "Z")


def _bytes_from_json(value: Any) -> Any:
    return base64.b64decode(value, validate=True) if isinstance(value, str) else value


Int64 = Annotated[
    int,
    BeforeValidator(_int_from_json),
    Field(ge=-(2**63), le=2**63 - 1),
    PlainSerializer(str, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "int64", "pattern": r"^-?\d{1,19}$"}),
]
"""A 64-bit integer: a string in JSON, a string or a number accepted."""

Timestamp = Annotated[
    datetime,
    AfterValidator(_require_zone),
    PlainSerializer(_rfc3339, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""An instant: RFC 3339 with `Z` in JSON."""

Base64Bytes = Annotated[
    bytes,
    BeforeValidator(_bytes_from_json),
    PlainSerializer(
        lambda value: base64.b64encode(value).decode(), return_type=str, when_used="json"
    ),
    WithJsonSchema({"type": "string", "format": "byte"}),
]
"""Bytes: base64 in JSON."""


class Empty(Message):
    """Nothing."""


Req = TypeVar("Req", bound=Message)
Res = TypeVar("Res", bound=Message)


@dataclass(frozen=True, slots=True)
class RpcMethod(Generic[Req, Res]):
    """One method of a service; `service.unary` and `service.stream` declare it.

    Who may call is said by exactly one of `scope` (a signed-in user whose token has it), `public` (anybody, through
    the edge) and `internal` (the apps that name the method in their manifest; the edge has no route to it).
    `idempotent` takes an `Idempotency-Key`. What `completes` begun work is served whatever the load. What `waits` for
    something else (a turn's end, an event) is not timed as a sign of load.
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
    timeout_seconds: float = 30.0
    completes: bool = False
    waits: bool = False

    def __post_init__(self) -> None:
        if (self.scope is not None) + self.public + self.internal != 1:
            raise TypeError(f"{self.name}: say exactly one of scope, public and internal")

    @property
    def path(self) -> str:
        """The path inside: `/yocaso.llm.v1.ConversationService/SendMessage`."""
        return f"/{self.service.name}/{self.name}"

    @property
    def edge_path(self) -> str:
        """The path outside: `/api/v1/llm/conversation/send-message`."""
        short = self.service.short_name.removesuffix("Service")
        return f"/api/v1/{self.service.app_id}/{kebab(short)}/{kebab(self.name)}"

    @property
    def verbs(self) -> tuple[str, ...]:
        """The HTTP methods: a stream also answers GET, with the fields of the request in the query."""
        return ("POST", "GET") if self.is_stream else ("POST",)


AnyMethod = RpcMethod[Any, Any]


class MethodOptions(TypedDict, total=False):
    """What a method may say besides its messages; see `RpcMethod`."""

    raises: tuple[AnyErrorCode, ...]
    idempotent: bool
    scope: str
    public: bool
    internal: bool
    timeout_seconds: float
    completes: bool
    waits: bool


class RpcService:
    """A named set of methods, hosted by one app: `yocaso.<app>.v1.<Name>Service`."""

    def __init__(self, name: str, summary: str) -> None:
        self.name = name
        self.summary = summary
        self._methods: dict[str, AnyMethod] = {}

    @property
    def app_id(self) -> str:
        """The app that hosts it."""
        return self.name.split(".")[1]

    @property
    def short_name(self) -> str:
        """The name without its package: `ConversationService`."""
        return self.name.rsplit(".", 1)[-1]

    @property
    def methods(self) -> tuple[AnyMethod, ...]:
        """All methods, in the order in which they were declared."""
        return tuple(self._methods.values())

    def unary(
        self,
        name: str,
        request: type[Req],
        response: type[Res],
        summary: str,
        **options: Unpack[MethodOptions],
    ) -> RpcMethod[Req, Res]:
        """Declare a method that answers once."""
        return self._declare(RpcMethod(self, name, request, response, summary, **options))

    def stream(
        self,
        name: str,
        request: type[Req],
        response: type[Res],
        summary: str,
        **options: Unpack[MethodOptions],
    ) -> RpcMethod[Req, Res]:
        """Declare a method that answers with server-sent events, each a `response`."""
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
