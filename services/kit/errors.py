"""The error catalogue: one code per failure that a caller can see. Any other exception is answered as INTERNAL."""

from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, core_schema

HELP_BASE_URL: Final = "https://docs.yocaso.dev/errors"
CLIENT_CLOSED_REQUEST: Final = 499
"""nginx's status for a request whose client disconnected; `HTTPStatus` lacks it."""


class AnyErrorCode(StrEnum):
    """Base of error codes: name on the wire, HTTP status, and whether a retry may succeed.

    Contracts add their own by subclassing. A name that no imported contract defines is read as INTERNAL.
    """

    status: int
    retryable: bool

    def __new__(cls, name: str, status: int, retryable: bool = False) -> Self:
        """Build a member from its tuple."""
        code = str.__new__(cls, name)
        code._value_ = name
        code.status = int(status)
        code.retryable = retryable
        return code

    @classmethod
    def __get_pydantic_core_schema__(cls, *_: object) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            code_of, serialization=core_schema.to_string_ser_schema()
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, *_: object) -> dict[str, Any]:
        return {"type": "string", "enum": [str(code) for code in catalogue()]}


class ErrorCode(AnyErrorCode):
    """The codes that every service uses."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT", HTTPStatus.BAD_REQUEST
    FAILED_PRECONDITION = "FAILED_PRECONDITION", HTTPStatus.BAD_REQUEST
    OUT_OF_RANGE = "OUT_OF_RANGE", HTTPStatus.BAD_REQUEST
    UNAUTHENTICATED = "UNAUTHENTICATED", HTTPStatus.UNAUTHORIZED
    PERMISSION_DENIED = "PERMISSION_DENIED", HTTPStatus.FORBIDDEN
    NOT_FOUND = "NOT_FOUND", HTTPStatus.NOT_FOUND
    ALREADY_EXISTS = "ALREADY_EXISTS", HTTPStatus.CONFLICT
    ABORTED = "ABORTED", HTTPStatus.CONFLICT, True
    IDEMPOTENCY_KEY_REUSED = "IDEMPOTENCY_KEY_REUSED", HTTPStatus.UNPROCESSABLE_ENTITY
    PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE", HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    RATE_LIMITED = "RATE_LIMITED", HTTPStatus.TOO_MANY_REQUESTS, True
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED", HTTPStatus.TOO_MANY_REQUESTS
    BUDGET_EXCEEDED = "BUDGET_EXCEEDED", HTTPStatus.PAYMENT_REQUIRED
    CANCELLED = "CANCELLED", CLIENT_CLOSED_REQUEST
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED", HTTPStatus.GATEWAY_TIMEOUT, True
    UNAVAILABLE = "UNAVAILABLE", HTTPStatus.SERVICE_UNAVAILABLE, True
    UPSTREAM_ERROR = "UPSTREAM_ERROR", HTTPStatus.BAD_GATEWAY, True
    SIGNATURE_INVALID = "SIGNATURE_INVALID", HTTPStatus.UNAUTHORIZED
    UNIMPLEMENTED = "UNIMPLEMENTED", HTTPStatus.NOT_IMPLEMENTED
    INTERNAL = "INTERNAL", HTTPStatus.INTERNAL_SERVER_ERROR, True


def catalogue() -> tuple[AnyErrorCode, ...]:
    """Every code of kit and of the imported contracts."""
    return tuple(code for kind in AnyErrorCode.__subclasses__() for code in kind)


def code_of(name: str) -> AnyErrorCode:
    """The code with this wire name; INTERNAL if unknown."""
    for kind in AnyErrorCode.__subclasses__():
        if name in kind.__members__:
            return kind[name]
    return ErrorCode.INTERNAL


class _ErrorPart(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class FieldViolation(_ErrorPart):
    """An invalid field of the request; `field` is its path, such as `message.text`."""

    field: str
    description: str


class UpstreamError(_ErrorPart):
    """A vendor's error response; `body` is cut to 2 KiB."""

    status_code: int
    body: str = ""


class ModelError(_ErrorPart):
    """The model and provider that failed, and the provider's reason."""

    model: str
    provider: str | None = None
    reason: str | None = None


class RetryInfo(_ErrorPart):
    """How long to wait before a retry: a duration such as `1.5s`."""

    retry_after: str


class HelpLink(_ErrorPart):
    """The documentation page of the code."""

    url: str


class ErrorDetails(_ErrorPart):
    """Structured context of an error."""

    upstream_error: UpstreamError | None = None
    model_error: ModelError | None = None
    retry_info: RetryInfo | None = None
    field_violations: list[FieldViolation] | None = None
    help_link: HelpLink | None = None


class ErrorStatus(_ErrorPart):
    """An error on the wire: its code, a message for people, and whether a retry is pointless."""

    code: AnyErrorCode
    message: str
    is_terminal: bool
    details: ErrorDetails = Field(default_factory=ErrorDetails)


class ErrorBody(_ErrorPart):
    """The body of every error: HTTP responses, SSE `error` events, workflow failures."""

    error: ErrorStatus

    def to_json(self) -> bytes:
        """The wire JSON: lowerCamelCase, without null fields."""
        return self.model_dump_json(by_alias=True, exclude_none=True).encode()


class RpcError(Exception):
    """An error that is answered to the caller with its code."""

    def __init__(
        self,
        code: AnyErrorCode,
        message: str,
        *,
        retry_after: timedelta | None = None,
        violations: Sequence[FieldViolation] = (),
        upstream: UpstreamError | None = None,
        model: ModelError | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.retry_after = retry_after
        self.violations = tuple(violations)
        self.upstream = upstream
        self.model = model

    @classmethod
    def invalid(cls, field: str, description: str) -> Self:
        """INVALID_ARGUMENT for one field."""
        violation = FieldViolation(field=field, description=description)
        return cls(ErrorCode.INVALID_ARGUMENT, f"{field}: {description}", violations=[violation])

    @classmethod
    def from_status(cls, status: ErrorStatus) -> Self:
        """The error that another process sent as `to_status`."""
        details = status.details
        return cls(
            status.code,
            status.message,
            retry_after=_parse_duration(details.retry_info.retry_after)
            if details.retry_info
            else None,
            violations=details.field_violations or (),
            upstream=details.upstream_error,
            model=details.model_error,
        )

    @property
    def status(self) -> int:
        return self.code.status

    @property
    def retryable(self) -> bool:
        """Whether a retry may succeed."""
        return self.code.retryable

    def to_status(self) -> ErrorStatus:
        """The error as a wire value."""
        retry = (
            RetryInfo(retry_after=_format_duration(self.retry_after)) if self.retry_after else None
        )
        return ErrorStatus(
            code=self.code,
            message=self.message,
            is_terminal=not self.retryable,
            details=ErrorDetails(
                upstream_error=self.upstream,
                model_error=self.model,
                retry_info=retry,
                field_violations=list(self.violations) or None,
                help_link=HelpLink(url=f"{HELP_BASE_URL}/{self.code.lower().replace('_', '-')}"),
            ),
        )

    def to_body(self) -> ErrorBody:
        return ErrorBody(error=self.to_status())

    def headers(self) -> dict[str, str]:
        """`Retry-After` in whole seconds, if the error has a `retry_after`."""
        if self.retry_after is None:
            return {}
        return {"retry-after": str(max(1, round(self.retry_after.total_seconds())))}


def internal_error() -> RpcError:
    """INTERNAL, without the exception's text."""
    return RpcError(ErrorCode.INTERNAL, "The server failed; the failure has been logged.")


def unavailable() -> RpcError:
    """UNAVAILABLE for an unreachable sidecar or store, without the exception's text: it names hosts and keys."""
    return RpcError(ErrorCode.UNAVAILABLE, "A part of the platform is restarting; try again.")


def not_found(what: str) -> RpcError:
    """NOT_FOUND, also for objects of other users: the caller must not learn that they exist."""
    return RpcError(ErrorCode.NOT_FOUND, f"No such {what}.")


def _format_duration(value: timedelta) -> str:
    return f"{value.total_seconds():g}s"


def _parse_duration(value: str) -> timedelta:
    return timedelta(seconds=float(value.removesuffix("s")))
