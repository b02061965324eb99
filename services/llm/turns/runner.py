"""One attempt at a turn: ask the model, commit the answer, close the stream; each repeatable.

An attempt may run twice, at once even: the answer is taken from its checkpoint when an attempt has written it, the
commit is fenced by the turn's epoch, and every event by the attempt.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog

from services.contracts.events import EventType
from services.contracts.llm.turns import (
    GENERATION_WORKFLOW,
    MAX_TURN_TIME,
    TURN_STREAM,
    GenerationInput,
    GenerationOptions,
    Turn,
    TurnRef,
)
from services.kit.clock import Clock
from services.kit.dapr.actors import Actors
from services.kit.errors import ErrorCode, ErrorStatus, RpcError
from services.kit.eventlog import Engine, NewEvent, NewStream, RetryLater, Segment
from services.kit.failpoints import failpoint
from services.kit.references import Workflows
from services.kit.telemetry.tracing import current_traceparent
from services.llm.actors import ConversationActorInterface
from services.llm.domain import ending, owed_charge
from services.llm.domain.commands import Answer, CompleteTurnCommand, TurnContext
from services.llm.ports import LanguageModel, Prompt
from services.llm.turns.model_call import ModelCall
from services.llm.turns.usage import UsageMeter

MAX_ATTEMPTS: Final = 12
"""Attempts of a turn by whoever makes them; the last one ends it."""
MAX_RETRY_AFTER: Final = timedelta(seconds=60)
DEFAULT_RETRY_AFTER: Final = timedelta(seconds=1)
WORKFLOW_GRACE: Final = timedelta(seconds=10)
"""How much later than the workflow recovery makes the next attempt, should the workflow not."""
SHORTEST_ATTEMPT: Final = timedelta(seconds=1)
"""With less time left no other attempt is made: its timer may end a moment before the clock says that it is due."""
PERMANENT: Final = frozenset({ErrorCode.NOT_FOUND, ErrorCode.ABORTED})

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Attempt:
    """Who makes an attempt. By the workflow, its wait for the next one is the workflow's too; the `last` ends the turn."""

    by_workflow: bool = False
    last: bool = False


HERE: Final = Attempt()
"""By the process that admitted the turn, or by recovery."""


class TurnRunner:
    """Makes attempts at turns."""

    def __init__(
        self,
        *,
        engine: Engine,
        actors: Actors,
        model: LanguageModel,
        workflows: Workflows,
        usage: UsageMeter,
        clock: Clock,
        max_output_tokens: int,
    ) -> None:
        self._engine = engine
        self._actors = actors
        self._model = model
        self._workflows = workflows
        self._usage = usage
        self._clock = clock
        self._defaults = GenerationOptions(max_output_tokens=max_output_tokens)

    async def run(
        self,
        segment: Segment,
        ref: TurnRef,
        context: TurnContext | None = None,
        attempt: Attempt = HERE,
    ) -> None:
        """Make one attempt, from the turn's context where the caller has it.

        Raises:
            RetryLater: the model failed in a way that may pass.
        """
        conversation = self._actors.get(ConversationActorInterface, ref.conversation_id)
        try:
            context = context or await conversation.turn_context(ref)
            turn, key_id, next_turn_id = context.turn, context.key_id, None
            if not turn.status.is_terminal:
                answer = await self._generate(segment, ref, context, attempt)
                await failpoint("turn.after_generate")
                completed = await conversation.complete_turn(_command(answer, context, segment))
                turn, next_turn_id = completed.turn, completed.next_turn_id
        except RpcError as error:
            if error.code not in PERMANENT:
                raise
            # The conversation was deleted, or another attempt ended the turn under a newer epoch.
            await segment.finish(EventType.RUN_CANCELLED, {})
            return
        await failpoint("turn.before_terminal")
        await segment.finish(*ending(turn), owed=owed_charge(turn, key_id))
        await failpoint("turn.after_terminal")
        if next_turn_id is not None:
            await self._begin_next(next_turn_id)

    async def _begin_next(self, turn_id: str) -> None:
        """Begin the next turn of the queue; recovery does where this fails."""
        try:
            await self._engine.take(turn_id)
        except RpcError as error:
            log.warning("turn.next_not_begun", turn_id=turn_id, code=error.code)

    async def _generate(
        self, segment: Segment, ref: TurnRef, context: TurnContext, attempt: Attempt
    ) -> Answer:
        """The answer by its checkpoint, or by the model."""

        async def ask() -> tuple[Answer, Sequence[NewEvent]]:
            return await self._ask(segment, ref, context, attempt)

        return await segment.step("generate", Answer, ask)

    async def _ask(
        self, segment: Segment, ref: TurnRef, context: TurnContext, attempt: Attempt
    ) -> tuple[Answer, Sequence[NewEvent]]:
        prompt = Prompt(
            model=context.turn.model,
            messages=context.messages,
            options=context.options.over(self._defaults),
            user=ref.user_id,
        )
        await failpoint("turn.before_model")
        call = ModelCall(
            segment,
            self._model,
            prompt,
            context.deadline,
            self._clock,
            opening=_opening(segment, ref, context.turn),
        )
        answer, rest = await call.run()
        too_late = self._clock() >= context.deadline - SHORTEST_ATTEMPT
        last = attempt.last or too_late or segment.number >= MAX_ATTEMPTS
        if not last and answer.error is not None and not answer.error.is_terminal:
            raise RetryLater(await self._next_attempt(ref, answer.error, attempt))
        usage = await self._usage.of_turn(segment, prompt, answer)
        if usage is None:
            return answer, rest
        counted = usage.model_dump(mode="json", by_alias=True, exclude_none=True)
        event = NewEvent(EventType.USAGE, counted)
        return answer.model_copy(update={"usage": usage}), [*rest, event]

    async def _next_attempt(self, ref: TurnRef, error: ErrorStatus, attempt: Attempt) -> timedelta:
        """Let the workflow hold the wait; after how long recovery makes the next attempt, should the workflow not."""
        after = _retry_after(error)
        if attempt.by_workflow:
            return after + WORKFLOW_GRACE
        wait = GenerationInput(
            **ref.model_dump(),
            traceparent=current_traceparent(),
            retry_after_seconds=after.total_seconds(),
        )
        try:
            await self._workflows.start(GENERATION_WORKFLOW, ref.turn_id, wait)
        except RpcError as failure:  # recovery holds the wait
            log.warning("turn.workflow_not_started", turn_id=ref.turn_id, code=failure.code)
            return after
        return after + WORKFLOW_GRACE


def turn_stream(ref: TurnRef, at: datetime) -> NewStream:
    """The stream of a turn that is admitted now."""
    deadline = at + MAX_TURN_TIME
    return NewStream(ref.turn_id, TURN_STREAM, ref.user_id, ref.conversation_id, deadline=deadline)


def run_started(ref: TurnRef, model: str) -> NewEvent:
    """The event that opens a turn's stream."""
    data = {"turnId": ref.turn_id, "conversationId": ref.conversation_id, "model": model}
    return NewEvent(EventType.RUN_STARTED, data)


def _opening(segment: Segment, ref: TurnRef, turn: Turn) -> list[NewEvent]:
    """What tells readers where they stand: the run begins, or what they saw of an attempt is void."""
    if segment.last_seq == 0:
        return [run_started(ref, turn.model)]
    kept = max(segment.checkpoint_seq, 1)
    if segment.last_seq > kept:
        return [NewEvent(EventType.ATTEMPT_RESTARTED, {"fromSeq": kept + 1})]
    return []


def _command(answer: Answer, context: TurnContext, segment: Segment) -> CompleteTurnCommand:
    return CompleteTurnCommand(
        turn_id=context.turn.turn_id,
        epoch=context.epoch,
        attempts=segment.number,
        **answer.model_dump(),
    )


def _retry_after(status: ErrorStatus) -> timedelta:
    wanted = RpcError.from_status(status).retry_after
    return min(wanted, MAX_RETRY_AFTER) if wanted else DEFAULT_RETRY_AFTER
