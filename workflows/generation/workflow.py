"""Retries one turn. Replayed from the top on every event: no clock, no random, no I/O."""

from collections.abc import Generator
from typing import Any

from services.contracts.llm.turns import (
    GENERATION_WORKFLOW,
    RUN_TURN,
    GenerationInput,
    RunTurnInput,
    TurnOutcome,
    TurnStatus,
)
from services.kit.dapr.workflows import ActivityFailed, WorkflowContext, workflow
from workflows.generation.policy import (
    MAX_HOST_FAILURES,
    MAX_MODEL_ATTEMPTS,
    host_retry_delay,
    model_retry_delay,
)


@workflow(GENERATION_WORKFLOW)
def generation(ctx: WorkflowContext, turn: GenerationInput) -> Generator[Any, Any, TurnOutcome]:
    """Make further attempts at a turn whose first one failed, until one ends it or the limits are reached."""
    attempts, failures = 1, 0
    yield from ctx.sleep(model_retry_delay(attempts, turn.retry_after_seconds))
    while failures < MAX_HOST_FAILURES:
        attempt = RunTurnInput(**turn.model_dump(), last=attempts >= MAX_MODEL_ATTEMPTS)
        try:
            outcome = yield from ctx.call(RUN_TURN, attempt)
        except ActivityFailed:
            failures += 1
            yield from ctx.sleep(host_retry_delay(failures))
            continue
        if outcome.status is not None:
            return outcome
        attempts += 1
        yield from ctx.sleep(model_retry_delay(attempts, outcome.retry_after_seconds))
    return TurnOutcome(status=TurnStatus.FAILED)
