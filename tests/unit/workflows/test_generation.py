"""The generation workflow: calls, delays and outcome."""

from collections.abc import Generator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from google.protobuf.wrappers_pb2 import StringValue

from services.contracts.llm.turns import GenerationInput, RunTurnInput, TurnOutcome, TurnStatus
from services.kit.dapr.workflows import MAX_PAYLOAD_BYTES, ActivityFailed
from workflows.generation.policy import (
    MAX_HOST_FAILURES,
    MAX_MODEL_ATTEMPTS,
    host_retry_delay,
    model_retry_delay,
)
from workflows.generation.workflow import generation

TURN = GenerationInput(user_id="u", conversation_id="c", turn_id="t", traceparent="00-a-b-01")


class Context:
    """A workflow context that yields calls and delays to the test."""

    def call(self, _: Any, value: RunTurnInput) -> Generator[Any, Any, TurnOutcome]:
        return (yield value)

    def sleep(self, duration: timedelta) -> Generator[Any, Any, None]:
        yield duration


def run(*answers: TurnOutcome | Exception) -> tuple[list[Any], TurnOutcome | None]:
    """The steps of the workflow in order, and its outcome."""
    steps: list[Any] = []
    running = generation(Context(), TURN)  # type: ignore[arg-type]
    queue = list(answers)
    try:
        step = next(running)
        while True:
            steps.append(step)
            if isinstance(step, timedelta):
                step = running.send(None)
            elif not queue:
                return steps, None
            elif isinstance(answer := queue.pop(0), Exception):
                step = running.throw(answer)
            else:
                step = running.send(answer)
    except StopIteration as ended:
        return steps, ended.value


def a_failure() -> ActivityFailed:
    details = SimpleNamespace(errorMessage="gone", errorType="Gone", stackTrace=StringValue())
    return ActivityFailed("gone", details)  # type: ignore[arg-type]


def test_a_turn_that_ends_needs_one_attempt() -> None:
    steps, outcome = run(TurnOutcome(status=TurnStatus.COMPLETED))
    assert [type(step) for step in steps] == [timedelta, RunTurnInput]
    assert outcome == TurnOutcome(status=TurnStatus.COMPLETED)


def test_a_failing_model_is_retried_and_the_last_attempt_ends_the_turn() -> None:
    again = TurnOutcome(retry_after_seconds=0.1)
    failed = TurnOutcome(status=TurnStatus.FAILED)
    steps, outcome = run(*[again] * (MAX_MODEL_ATTEMPTS - 1), failed)
    attempts = [step for step in steps if isinstance(step, RunTurnInput)]
    assert [attempt.last for attempt in attempts] == [False] * (MAX_MODEL_ATTEMPTS - 1) + [True]
    assert outcome == failed


def test_the_delay_is_at_least_the_retry_after_of_the_provider() -> None:
    steps, _ = run(TurnOutcome(retry_after_seconds=30))
    assert steps[2] == timedelta(seconds=30)


def test_the_first_delay_is_the_retry_after_of_the_first_failure() -> None:
    running = generation(Context(), TURN.model_copy(update={"retry_after_seconds": 20.0}))  # type: ignore[arg-type]
    assert next(running) == timedelta(seconds=20)


def test_host_failures_are_retried_within_seconds_up_to_a_limit() -> None:
    steps, outcome = run(*(a_failure() for _ in range(MAX_HOST_FAILURES)))
    delays = [step for step in steps if isinstance(step, timedelta)][1:]
    assert len(delays) == MAX_HOST_FAILURES
    assert delays[0] <= timedelta(seconds=1)
    assert max(delays) <= timedelta(seconds=10)
    assert outcome == TurnOutcome(status=TurnStatus.FAILED)


def test_delays_grow_to_a_limit() -> None:
    assert model_retry_delay(1, 0) < model_retry_delay(3, 0) <= model_retry_delay(9, 0)
    assert model_retry_delay(9, 0) == model_retry_delay(10, 0)
    assert host_retry_delay(1) < host_retry_delay(5) <= host_retry_delay(30)


def test_payloads_stay_small() -> None:
    longest = GenerationInput(user_id="u" * 128, conversation_id="c" * 37, turn_id="t" * 37)
    assert len(longest.model_dump_json()) < MAX_PAYLOAD_BYTES // 16
