"""The generation workflow, driven by hand: what it calls, when it waits, when it ends."""

from collections.abc import Generator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from google.protobuf.wrappers_pb2 import StringValue

from services.contracts.llm.turns import GenerationInput, RunTurnInput, TurnOutcome, TurnStatus
from services.kit.dapr.workflows import MAX_PAYLOAD_BYTES, ActivityFailed
from workflows.generation.policy import (
    HOST_TRIES,
    MODEL_TRIES,
    after_host_failure,
    after_model_failure,
)
from workflows.generation.workflow import generation

TURN = GenerationInput(user_id="u", conversation_id="c", turn_id="t", traceparent="00-a-b-01")


class Engine:
    """Stands in for the durable context: yields what is asked of it, and is answered by the test."""

    def call(self, _: Any, value: RunTurnInput) -> Generator[Any, Any, TurnOutcome]:
        return (yield value)

    def sleep(self, duration: timedelta) -> Generator[Any, Any, None]:
        yield duration


def driven(*answers: TurnOutcome | Exception) -> tuple[list[Any], TurnOutcome | None]:
    """What the workflow asked for, in order, and how it ended."""
    asked: list[Any] = []
    running = generation(Engine(), TURN)  # type: ignore[arg-type]
    queue = list(answers)
    try:
        step = next(running)
        while True:
            asked.append(step)
            if isinstance(step, timedelta):
                step = running.send(None)
            elif not queue:
                return asked, None
            elif isinstance(answer := queue.pop(0), Exception):
                step = running.throw(answer)
            else:
                step = running.send(answer)
    except StopIteration as ended:
        return asked, ended.value


def a_failure() -> ActivityFailed:
    details = SimpleNamespace(errorMessage="gone", errorType="Gone", stackTrace=StringValue())
    return ActivityFailed("gone", details)  # type: ignore[arg-type]


def test_a_turn_that_ends_needs_one_segment() -> None:
    asked, outcome = driven(TurnOutcome(status=TurnStatus.COMPLETED))
    assert [type(step) for step in asked] == [timedelta, RunTurnInput]
    assert outcome == TurnOutcome(status=TurnStatus.COMPLETED)


def test_a_model_that_fails_is_asked_again_later_and_the_last_time_ends_the_turn() -> None:
    again = TurnOutcome(retry_after_seconds=0.1)
    failed = TurnOutcome(status=TurnStatus.FAILED)
    asked, outcome = driven(*[again] * (MODEL_TRIES - 1), failed)
    segments = [step for step in asked if isinstance(step, RunTurnInput)]
    assert [segment.last for segment in segments] == [False] * (MODEL_TRIES - 1) + [True]
    assert outcome == failed


def test_a_provider_that_asks_for_time_gets_it() -> None:
    asked, _ = driven(TurnOutcome(retry_after_seconds=30))
    assert asked[2] == timedelta(seconds=30)


def test_the_first_wait_is_the_one_that_the_first_failure_asked_for() -> None:
    running = generation(Engine(), TURN.model_copy(update={"retry_after_seconds": 20.0}))  # type: ignore[arg-type]
    assert next(running) == timedelta(seconds=20)


def test_a_host_that_dies_is_replaced_within_seconds_and_not_for_ever() -> None:
    asked, outcome = driven(*(a_failure() for _ in range(HOST_TRIES)))
    pauses = [step for step in asked if isinstance(step, timedelta)][1:]
    assert len(pauses) == HOST_TRIES
    assert pauses[0] <= timedelta(seconds=1)
    assert max(pauses) <= timedelta(seconds=10)
    assert outcome == TurnOutcome(status=TurnStatus.FAILED)


def test_pauses_grow_to_a_bound() -> None:
    assert after_model_failure(1, 0) < after_model_failure(3, 0) <= after_model_failure(9, 0)
    assert after_model_failure(9, 0) == after_model_failure(10, 0)
    assert after_host_failure(1) < after_host_failure(5) <= after_host_failure(30)


def test_payloads_are_references() -> None:
    longest = GenerationInput(user_id="u" * 128, conversation_id="c" * 37, turn_id="t" * 37)
    assert len(longest.model_dump_json()) < MAX_PAYLOAD_BYTES // 16
