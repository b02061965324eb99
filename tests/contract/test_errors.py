"""The error catalogue is complete; statuses and retry flags are fixed."""

from services.contracts.apps import METHODS
from services.kit.errors import RpcError, catalogue, internal_error
from tests.requirements import requirement

STATUSES = {
    400: "INVALID_ARGUMENT FAILED_PRECONDITION OUT_OF_RANGE MODEL_INVALID CONTEXT_LENGTH_EXCEEDED",
    401: "UNAUTHENTICATED SIGNATURE_INVALID",
    402: "BUDGET_EXCEEDED",
    403: "PERMISSION_DENIED TOOL_APPROVAL_DENIED",
    404: "NOT_FOUND TOOL_NOT_FOUND",
    409: "ALREADY_EXISTS ABORTED TURN_IN_PROGRESS",
    413: "PAYLOAD_TOO_LARGE",
    422: "IDEMPOTENCY_KEY_REUSED CONTENT_FILTERED",
    429: "RATE_LIMITED QUOTA_EXCEEDED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    502: "UPSTREAM_ERROR STREAM_INCOMPLETE TOOL_EXECUTION_FAILED",
    503: "UNAVAILABLE MODEL_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
RETRYABLE = (
    "ABORTED TURN_IN_PROGRESS RATE_LIMITED DEADLINE_EXCEEDED UNAVAILABLE UPSTREAM_ERROR MODEL_UNAVAILABLE "
    "STREAM_INCOMPLETE TOOL_EXECUTION_FAILED INTERNAL"
)


@requirement("kit:errors")
def test_every_code_has_its_status() -> None:
    expected = {code: status for status, codes in STATUSES.items() for code in codes.split()}
    assert {code.value: code.status for code in catalogue()} == expected


@requirement("kit:errors")
def test_a_code_is_retryable_only_where_the_same_call_may_succeed_later() -> None:
    assert {code.value for code in catalogue() if code.retryable} == set(RETRYABLE.split())


@requirement("kit:errors")
def test_an_error_body_has_is_terminal_and_a_help_link() -> None:
    for code in catalogue():
        status = RpcError(code, "why").to_body().error
        assert status.is_terminal is not code.retryable
        assert status.details.help_link is not None
        assert status.details.help_link.url.endswith("/" + code.value.lower().replace("_", "-"))


@requirement("kit:errors")
def test_internal_hides_the_text_of_the_exception() -> None:
    try:
        raise ValueError("password=hunter2")
    except ValueError:
        assert b"hunter2" not in internal_error().to_body().to_json()


def test_the_errors_of_a_method_are_distinct_codes_of_the_catalogue() -> None:
    for method in METHODS:
        assert len(set(method.raises)) == len(method.raises), method.name
        assert set(method.raises) <= set(catalogue()), method.name
