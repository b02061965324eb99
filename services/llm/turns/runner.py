"""One attempt at a turn: call the model, commit the answer, close the stream. Each step is repeatable.

Two attempts may overlap: an answer with a checkpoint is not generated again, the commit is fenced by the turn's epoch,
and events are fenced by the attempt number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
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
from services.llm.domain import owed_charge, terminal_event
from services.llm.domain.commands import Answer, CompleteTurnCommand, TurnContext
from services.llm.ports import LanguageModel, Prompt
from services.llm.turns.model_call import ModelCall
from services.llm.turns.usage import UsageMeter

MAX_ATTEMPTS: Final = 12
"""Maximum attempts at a turn by any host; the last one ends it."""
MAX_RETRY_AFTER: Final = timedelta(seconds=60)
DEFAULT_RETRY_AFTER: Final = timedelta(seconds=1)
WORKFLOW_GRACE: Final = timedelta(seconds=10)
"""Recovery makes the next attempt this much later than the workflow should have."""
SHORTEST_ATTEMPT: Final = timedelta(seconds=1)
"""Minimum time before the deadline for another attempt; a timer may end slightly before the clock's deadline."""
SUPERSEDED_CODES: Final = frozenset({ErrorCode.NOT_FOUND, ErrorCode.ABORTED})

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class AttemptOptions:
    """`by_workflow`: the workflow that made the attempt also waits for a retry. `last`: no retry, the turn ends."""

    by_workflow: bool = False
    last: bool = False


BY_HOST: Final = AttemptOptions()
"""An attempt by the host that admitted the turn, or by recovery."""


class TurnRunner:
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
        options: AttemptOptions = BY_HOST,
    ) -> None:
        """Make one attempt; loads `context` if the caller does not have it.

        Raises:
            RetryLater: the model failed, and a retry may succeed.
        """
        conversation = self._actors.get(ConversationActorInterface, ref.conversation_id)
        try:
            context = context or await conversation.turn_context(ref)
            turn, key_id, next_turn_id = context.turn, context.key_id, None
            if not turn.status.is_terminal:
                generate = partial(self._generate, segment, ref, context, options)
                answer = await segment.step("generate", Answer, generate)
                await failpoint("turn.after_generate")
                completed = await conversation.complete_turn(_command(answer, context, segment))
                turn, next_turn_id = completed.turn, completed.next_turn_id
        except RpcError as error:
            if error.code not in SUPERSEDED_CODES:
                raise
            # The conversation was deleted, or another attempt ended the turn under a newer epoch.
            await segment.finish(EventType.RUN_CANCELLED, {})
            return
        await failpoint("turn.before_terminal")
        await segment.finish(*terminal_event(turn), owed=owed_charge(turn, key_id))
        await failpoint("turn.after_terminal")
        if next_turn_id is not None:
            await self._begin_next(next_turn_id)

    async def _begin_next(self, turn_id: str) -> None:
        """Begin the next queued turn; if this fails, recovery does."""
        try:
            await self._engine.take_over(turn_id)
        except RpcError as error:
            log.warning("turn.next_not_begun", turn_id=turn_id, code=error.code)

    async def _generate(
        self, segment: Segment, ref: TurnRef, context: TurnContext, options: AttemptOptions
    ) -> tuple[Answer, Sequence[NewEvent]]:
        """Call the model. Returns the answer, and the events to commit with it."""
        prompt = Prompt(
            model=context.turn.model,
            messages=context.messages,
            options=context.options.with_defaults(self._defaults),
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
        last = options.last or too_late or segment.number >= MAX_ATTEMPTS
        if not last and answer.error is not None and not answer.error.is_terminal:
            raise RetryLater(await self._schedule_retry(ref, answer.error, options))
        usage = await self._usage.measure(segment, prompt, answer)
        if usage is None:
            return answer, rest
        data = usage.model_dump(mode="json", by_alias=True, exclude_none=True)
        event = NewEvent(EventType.USAGE, data)
        return answer.model_copy(update={"usage": usage}), [*rest, event]

    async def _schedule_retry(
        self, ref: TurnRef, error: ErrorStatus, options: AttemptOptions
    ) -> timedelta:
        """Start the workflow, which waits and retries. Returns the delay after which recovery retries instead."""
        after = _retry_after(error)
        if options.by_workflow:
            return after + WORKFLOW_GRACE
        retry = GenerationInput(
            **ref.model_dump(),
            traceparent=current_traceparent(),
            retry_after_seconds=after.total_seconds(),
        )
        try:
            await self._workflows.start(GENERATION_WORKFLOW, ref.turn_id, retry)
        except RpcError as failure:  # recovery retries
            log.warning("turn.workflow_not_started", turn_id=ref.turn_id, code=failure.code)
            return after
        return after + WORKFLOW_GRACE


def turn_stream(ref: TurnRef, at: datetime) -> NewStream:
    deadline = at + MAX_TURN_TIME
    return NewStream(ref.turn_id, TURN_STREAM, ref.user_id, ref.conversation_id, deadline=deadline)


def run_started(ref: TurnRef, model: str) -> NewEvent:
    """The first event of a turn's stream."""
    data = {"turnId": ref.turn_id, "conversationId": ref.conversation_id, "model": model}
    return NewEvent(EventType.RUN_STARTED, data)


def _opening(segment: Segment, ref: TurnRef, turn: Turn) -> list[NewEvent]:
    """The first events of an attempt: the run begins, or readers must discard an earlier attempt's deltas."""
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
    requested = RpcError.from_status(status).retry_after
    return min(requested, MAX_RETRY_AFTER) if requested else DEFAULT_RETRY_AFTER
