"""How a contract is declared: messages, methods and services; routers, OpenAPI and the edge follow it."""

import base64
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any

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

from services.kit.errors import ErrorCode


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


@dataclass(frozen=True, slots=True)
class RpcMethod:
    """One method of a service.

    `stream` answers `text/event-stream` (POST, and GET with the fields in the query). `idempotent` takes an
    `Idempotency-Key`. Who may call is said by exactly one of `scope` (a signed-in user whose token has it),
    `public` (anybody, through the edge) and `callers` (these apps only; the edge has no route to it). What
    `completes` begun work is served whatever the load. What
    `waits` for something else (a turn's end, an event) is not timed as a sign of load.
    """

    name: str
    request: type[Message]
    response: type[Message]
    summary: str
    raises: tuple[ErrorCode, ...] = ()
    stream: bool = False
    idempotent: bool = False
    scope: str | None = None
    public: bool = False
    callers: tuple[str, ...] = ()
    timeout_seconds: float = 30.0
    completes: bool = False
    waits: bool = False

    def __post_init__(self) -> None:
        if (self.scope is not None) + self.public + bool(self.callers) != 1:
            raise TypeError(f"{self.name}: say exactly one of scope, public and callers")

    @property
    def internal(self) -> bool:
        """Whether only other apps may call it."""
        return bool(self.callers)


@dataclass(frozen=True, slots=True)
class RpcService:
    """A named set of methods, hosted by one app: `yocaso.<app>.v1.<Name>Service`."""

    name: str
    app_id: str
    summary: str
    methods: tuple[RpcMethod, ...] = field(default=())

    def __getitem__(self, method: str) -> RpcMethod:
        for candidate in self.methods:
            if candidate.name == method:
                return candidate
        raise KeyError(f"{self.name} has no method {method}")

    def path(self, method: RpcMethod) -> str:
        """The path inside: `/yocaso.llm.v1.ConversationService/SendMessage`."""
        return f"/{self.name}/{method.name}"

    def edge_path(self, method: RpcMethod) -> str:
        """The path outside: `/api/v1/llm/conversation/send-message`."""
        short = self.name.rsplit(".", 1)[-1].removesuffix("Service")
        return f"/api/v1/{self.app_id}/{kebab(short)}/{kebab(method.name)}"


def kebab(name: str) -> str:
    """`SendMessage` → `send-message`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()
