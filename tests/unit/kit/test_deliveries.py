"""Which failed deliveries are retried, given up or counted."""

from datetime import timedelta

import pytest

from services.kit.dapr.deliveries import (
    MAX_ATTEMPTS,
    MAX_WAIT,
    attempts_if_given_up,
    error_of,
)
from services.kit.dapr.state_rows import StateStoreError
from services.kit.errors import ErrorCode, RpcError, unavailable
from tests.requirements import requirement

PASSING = (unavailable(), StateStoreError("away"), RpcError(ErrorCode.DEADLINE_EXCEEDED, "late"))
BUGS = (KeyError("a secret"), TimeoutError(), ConnectionRefusedError("another server"))


class Failures:
    """Counts the failures of one delivery."""

    def __init__(self, before: int = 0) -> None:
        self.number = before

    async def count(self) -> int:
        self.number += 1
        return self.number


async def attempts(error: Exception, age: timedelta, failures: Failures) -> int | None:
    return await attempts_if_given_up(error, age=age, count_failure=failures.count)


@requirement("kit:pubsub:retries", "kit:jobs:failures")
@pytest.mark.parametrize("error", PASSING, ids=repr)
async def test_an_error_that_may_pass_is_retried_for_a_day_and_not_counted(
    error: Exception,
) -> None:
    failures = Failures(MAX_ATTEMPTS)
    assert await attempts(error, MAX_WAIT, failures) is None
    assert await attempts(error, MAX_WAIT + timedelta(seconds=1), failures) == 1
    assert failures.number == MAX_ATTEMPTS


@requirement("kit:pubsub:dead-letters", "kit:jobs:failures")
async def test_a_terminal_error_ends_a_delivery_at_once() -> None:
    failures = Failures()
    refused = RpcError(ErrorCode.FAILED_PRECONDITION, "no")
    assert await attempts(refused, timedelta(0), failures) == 1
    assert failures.number == 0


@requirement("kit:pubsub:dead-letters", "kit:jobs:failures")
@pytest.mark.parametrize("error", BUGS, ids=repr)
async def test_a_bug_and_a_timeout_end_a_delivery_after_five_attempts(error: Exception) -> None:
    failures = Failures()
    ends = [await attempts(error, timedelta(days=9), failures) for _ in range(MAX_ATTEMPTS)]
    assert ends == [None, None, None, None, MAX_ATTEMPTS]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RpcError(ErrorCode.NOT_FOUND, "gone"), ErrorCode.NOT_FOUND),
        (StateStoreError("a secret"), ErrorCode.UNAVAILABLE),
        (TimeoutError("a secret"), ErrorCode.DEADLINE_EXCEEDED),
        (ValueError("a secret"), ErrorCode.INTERNAL),
    ],
)
def test_what_is_shown_of_an_error_hides_its_text(error: Exception, code: ErrorCode) -> None:
    shown = error_of(error)
    assert shown.code is code
    assert "secret" not in str(shown)
