"""Maps OpenRouter's errors to error codes (its documentation: "Errors and Debugging")."""

import email.utils
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

import httpx2
import openai
from pydantic import BaseModel

from services.contracts.llm.errors import LlmErrorCode
from services.kit.errors import AnyErrorCode, ErrorCode, ModelError, RpcError, UpstreamError

MAX_BODY_SHOWN: Final = 2048
CODES: Final[Mapping[int, tuple[AnyErrorCode, str]]] = {
    400: (ErrorCode.INVALID_ARGUMENT, "The provider refused the request."),
    401: (ErrorCode.FAILED_PRECONDITION, "The provider refused the platform's credentials."),
    402: (ErrorCode.BUDGET_EXCEEDED, "The provider account is out of credit."),
    403: (LlmErrorCode.CONTENT_FILTERED, "The provider's moderation refused the request."),
    404: (LlmErrorCode.MODEL_INVALID, "The requested model is not available."),
    408: (ErrorCode.DEADLINE_EXCEEDED, "The provider took too long."),
    413: (LlmErrorCode.CONTEXT_LENGTH_EXCEEDED, "The conversation is too long for the model."),
    422: (ErrorCode.INVALID_ARGUMENT, "The provider refused the request."),
    429: (ErrorCode.RATE_LIMITED, "The provider limits the rate of requests."),
    503: (LlmErrorCode.MODEL_UNAVAILABLE, "No provider of the model is available."),
    504: (ErrorCode.DEADLINE_EXCEEDED, "The provider took too long."),
    529: (LlmErrorCode.MODEL_UNAVAILABLE, "The provider is overloaded."),
}
CONTEXT_HINTS: Final = ("context length", "context_length", "maximum context", "too many tokens")
MODEL_HINTS: Final = (
    "not a valid model",
    "model_not_found",
    "no endpoints found",
    "does not exist",
)


def from_status(response: httpx2.Response, body: object, model: str) -> RpcError:
    text = _text(body) or response.text
    return _error(
        response.status_code, text, model, retry_after(response.headers.get("retry-after"))
    )


class ErrorObject(BaseModel):
    """An error inside a 200: in the body, a chunk or a choice."""

    code: int | str | None = None
    message: str = ""
    metadata: dict[str, Any] | None = None

    @property
    def status(self) -> int:
        """The code as an HTTP status, else 502."""
        text = str(self.code)
        return int(text) if text.isdecimal() and len(text) == 3 else 502


def from_error_object(error: ErrorObject, model: str) -> RpcError:
    provider = (error.metadata or {}).get("provider_name")
    return _error(error.status, error.message, model, None, provider)


def unreachable(error: openai.APIConnectionError, model: str) -> RpcError:
    """From a failed connection, or a timeout before the first byte."""
    if isinstance(error, openai.APITimeoutError):
        message = "The provider did not answer in time."
    else:
        message = "The provider cannot be reached."
    return RpcError(LlmErrorCode.MODEL_UNAVAILABLE, message, model=ModelError(model=model))


def incomplete(model: str, reason: str) -> RpcError:
    """For an answer that was cut off."""
    return RpcError(
        LlmErrorCode.STREAM_INCOMPLETE,
        "The provider's stream ended before the answer was complete.",
        model=ModelError(model=model, reason=reason),
    )


def retry_after(value: str | None) -> timedelta | None:
    """`Retry-After` in seconds or as an HTTP date (RFC 9110, 10.2.3)."""
    if not value:
        return None
    try:
        if value.strip().isdecimal():
            return timedelta(seconds=int(value))
        at = email.utils.parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(at - datetime.now(UTC), timedelta(0))


def _error(
    status: int, text: str, model: str, wait: timedelta | None, provider: str | None = None
) -> RpcError:
    code, message = CODES.get(status, (ErrorCode.UPSTREAM_ERROR, "The provider failed."))
    hint = text.lower()
    if status in (400, 404, 422) and any(known in hint for known in CONTEXT_HINTS):
        code, message = (
            LlmErrorCode.CONTEXT_LENGTH_EXCEEDED,
            "The conversation is too long for the model.",
        )
    elif status in (400, 404) and any(known in hint for known in MODEL_HINTS):
        code, message = LlmErrorCode.MODEL_INVALID, "The requested model is not available."
    return RpcError(
        code,
        message,
        retry_after=wait,
        upstream=UpstreamError(status_code=status, body=text[:MAX_BODY_SHOWN]),
        model=ModelError(model=model, provider=provider),
    )


def _text(body: object) -> str:
    if isinstance(body, dict):
        found = cast(dict[str, Any], body)
        return str(found.get("message", found))
    return str(body) if body else ""
