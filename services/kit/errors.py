"""One row per failure that a caller can see; anything else is a bug and becomes INTERNAL."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from http import HTTPStatus
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

HELP_BASE_URL: Final = "https://docs.yocaso.dev/errors"
CLIENT_CLOSED_REQUEST: Final = 499
"""nginx's code for a request that its client gave up; `HTTPStatus` has no name for it."""


class ErrorCode(StrEnum):
    """The codes of `RpcError`; the wire shows the name."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    ABORTED = "ABORTED"
    TURN_IN_PROGRESS = "TURN_IN_PROGRESS"
    IDEMPOTENCY_KEY_REUSED = "IDEMPOTENCY_KEY_REUSED"
    PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE"
    RATE_LIMITED = "RATE_LIMITED"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    BUDGET_EXCEEDED = "BUDGET_EXCEEDED"
    CANCELLED = "CANCELLED"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    UNAVAILABLE = "UNAVAILABLE"
    UPSTREAM_ERROR = "UPSTREAM_ERROR"
    MODEL_INVALID = "MODEL_INVALID"
    MODEL_UNAVAILABLE = "MODEL_UNAVAILABLE"
    CONTEXT_LENGTH_EXCEEDED = "CONTEXT_LENGTH_EXCEEDED"
    CONTENT_FILTERED = "CONTENT_FILTERED"
    STREAM_INCOMPLETE = "STREAM_INCOMPLETE"
    TOOL_NOT_FOUND = "TOOL_NOT_FOUND"
    TOOL_EXECUTION_FAILED = "TOOL_EXECUTION_FAILED"
    TOOL_APPROVAL_DENIED = "TOOL_APPROVAL_DENIED"
    SIGNATURE_INVALID = "SIGNATURE_INVALID"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    INTERNAL = "INTERNAL"


@dataclass(frozen=True, slots=True)
class ErrorTraits:
    """What a code means to a caller: its HTTP status, and whether the same call may succeed later."""

    status: int
    retryable: bool = False


CATALOGUE: Final[Mapping[ErrorCode, ErrorTraits]] = {
    ErrorCode.INVALID_ARGUMENT: ErrorTraits(HTTPStatus.BAD_REQUEST),
    ErrorCode.FAILED_PRECONDITION: ErrorTraits(HTTPStatus.BAD_REQUEST),
    ErrorCode.OUT_OF_RANGE: ErrorTraits(HTTPStatus.BAD_REQUEST),
    ErrorCode.UNAUTHENTICATED: ErrorTraits(HTTPStatus.UNAUTHORIZED),
    ErrorCode.PERMISSION_DENIED: ErrorTraits(HTTPStatus.FORBIDDEN),
    ErrorCode.NOT_FOUND: ErrorTraits(HTTPStatus.NOT_FOUND),
    ErrorCode.ALREADY_EXISTS: ErrorTraits(HTTPStatus.CONFLICT),
    ErrorCode.ABORTED: ErrorTraits(HTTPStatus.CONFLICT, retryable=True),
    ErrorCode.TURN_IN_PROGRESS: ErrorTraits(HTTPStatus.CONFLICT, retryable=True),
    ErrorCode.IDEMPOTENCY_KEY_REUSED: ErrorTraits(HTTPStatus.UNPROCESSABLE_ENTITY),
    ErrorCode.PAYLOAD_TOO_LARGE: ErrorTraits(HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    ErrorCode.RATE_LIMITED: ErrorTraits(HTTPStatus.TOO_MANY_REQUESTS, retryable=True),
    ErrorCode.QUOTA_EXCEEDED: ErrorTraits(HTTPStatus.TOO_MANY_REQUESTS),
    ErrorCode.BUDGET_EXCEEDED: ErrorTraits(HTTPStatus.PAYMENT_REQUIRED),
    ErrorCode.CANCELLED: ErrorTraits(CLIENT_CLOSED_REQUEST),
    ErrorCode.DEADLINE_EXCEEDED: ErrorTraits(HTTPStatus.GATEWAY_TIMEOUT, retryable=True),
    ErrorCode.UNAVAILABLE: ErrorTraits(HTTPStatus.SERVICE_UNAVAILABLE, retryable=True),
    ErrorCode.UPSTREAM_ERROR: ErrorTraits(HTTPStatus.BAD_GATEWAY, retryable=True),
    ErrorCode.MODEL_INVALID: ErrorTraits(HTTPStatus.BAD_REQUEST),
    ErrorCode.MODEL_UNAVAILABLE: ErrorTraits(HTTPStatus.SERVICE_UNAVAILABLE, retryable=True),
    ErrorCode.CONTEXT_LENGTH_EXCEEDED: ErrorTraits(HTTPStatus.BAD_REQUEST),
    ErrorCode.CONTENT_FILTERED: ErrorTraits(HTTPStatus.UNPROCESSABLE_ENTITY),
    ErrorCode.STREAM_INCOMPLETE: ErrorTraits(HTTPStatus.BAD_GATEWAY, retryable=True),
    ErrorCode.TOOL_NOT_FOUND: ErrorTraits(HTTPStatus.NOT_FOUND),
    ErrorCode.TOOL_EXECUTION_FAILED: ErrorTraits(HTTPStatus.BAD_GATEWAY, retryable=True),
    ErrorCode.TOOL_APPROVAL_DENIED: ErrorTraits(HTTPStatus.FORBIDDEN),
    ErrorCode.SIGNATURE_INVALID: ErrorTraits(HTTPStatus.UNAUTHORIZED),
    ErrorCode.UNIMPLEMENTED: ErrorTraits(HTTPStatus.NOT_IMPLEMENTED),
    ErrorCode.INTERNAL: ErrorTraits(HTTPStatus.INTERNAL_SERVER_ERROR, retryable=True),
}


class _ErrorPart(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class FieldViolation(_ErrorPart):
    """A field of the request that broke a rule; `field` is its path, such as `message.text`."""

    field: str
    description: str


class UpstreamError(_ErrorPart):
    """What a vendor answered; `body` is cut to 2 KiB."""

    status_code: int
    body: str = ""


class ModelError(_ErrorPart):
    """Which model and provider failed, and the reason that the provider gave."""

    model: str
    provider: str | None = None
    reason: str | None = None


class RetryInfo(_ErrorPart):
    """When the same call may be tried again: a duration such as `1.5s`."""

    retry_after: str


class HelpLink(_ErrorPart):
    """The page that explains the code."""

    url: str


class ErrorDetails(_ErrorPart):
    """Structured context of an error; what is unknown is absent."""

    upstream_error: UpstreamError | None = None
    model_error: ModelError | None = None
    retry_info: RetryInfo | None = None
    field_violations: list[FieldViolation] | None = None
    help_link: HelpLink | None = None


class ErrorStatus(_ErrorPart):
    """A failure: its code, a sentence for people, and whether trying again is pointless."""

    code: ErrorCode
    message: str
    is_terminal: bool
    details: ErrorDetails = Field(default_factory=ErrorDetails)


class ErrorBody(_ErrorPart):
    """The body of every error, in HTTP, SSE, workflow failures, webhooks and dead letters alike."""

    error: ErrorStatus

    def to_json(self) -> bytes:
        """The wire form: lowerCamelCase, absent fields left out."""
        return self.model_dump_json(by_alias=True, exclude_none=True).encode()


class RpcError(Exception):
    """A failure that a caller can see and act upon, by its code."""

    def __init__(
        self,
        code: ErrorCode,
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
        """The error that `to_status` was made from, on the other side of a boundary."""
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
        """The HTTP status of the code."""
        return int(CATALOGUE[self.code].status)

    @property
    def retryable(self) -> bool:
        """Whether the same call may succeed later."""
        return CATALOGUE[self.code].retryable

    def to_status(self) -> ErrorStatus:
        """The error as a value."""
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
        """The error as a response body."""
        return ErrorBody(error=self.to_status())

    def headers(self) -> dict[str, str]:
        """`Retry-After` in whole seconds, when the error says when to come back."""
        if self.retry_after is None:
            return {}
        return {"retry-after": str(max(1, round(self.retry_after.total_seconds())))}


def internal_error() -> RpcError:
    """INTERNAL; never shows the text of an exception."""
    return RpcError(ErrorCode.INTERNAL, "The server failed; the failure has been logged.")


def not_found(what: str) -> RpcError:
    """NOT_FOUND; the same answer for what is missing and for what belongs to somebody else."""
    return RpcError(ErrorCode.NOT_FOUND, f"No such {what}.")


def _format_duration(value: timedelta) -> str:
    return f"{value.total_seconds():g}s"


def _parse_duration(value: str) -> timedelta:
    return timedelta(seconds=float(value.removesuffix("s")))
