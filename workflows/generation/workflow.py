"""Answers one turn. Replayed from the top at every wake-up: no clock, no random, no I/O."""

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
    HOST_TRIES,
    MODEL_TRIES,
    after_host_failure,
    after_model_failure,
)


@workflow(GENERATION_WORKFLOW)
def generation(ctx: WorkflowContext, turn: GenerationInput) -> Generator[Any, Any, TurnOutcome]:
    """After its first failure: run segments until one ends the turn; what failed and may pass is tried again later."""
    model_tries, host_tries = 1, 0
    yield from ctx.sleep(after_model_failure(model_tries, turn.retry_after_seconds))
    while host_tries < HOST_TRIES:
        segment = RunTurnInput(
            user_id=turn.user_id,
            conversation_id=turn.conversation_id,
            turn_id=turn.turn_id,
            traceparent=turn.traceparent,
            last=model_tries >= MODEL_TRIES,
        )
        try:
            outcome = yield from ctx.call(RUN_TURN, segment)
        except ActivityFailed:
            host_tries += 1
            yield from ctx.sleep(after_host_failure(host_tries))
            continue
        if outcome.status is not None:
            return outcome
        model_tries += 1
        yield from ctx.sleep(after_model_failure(model_tries, outcome.retry_after_seconds))
    return TurnOutcome(status=TurnStatus.FAILED)
