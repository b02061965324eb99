"""One segment of a turn: generate, then commit; each is checkpointed before the next begins.

The activity may run twice, at once even: `generate` is taken from its checkpoint when an attempt has finished it,
`commit` is fenced by the turn's epoch, and every event by the attempt.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

import structlog

from services.contracts.conversations import Turn, TurnStatus
from services.contracts.events import EventType
from services.contracts.turns import (
    TURN_STREAM,
    CompletedTurn,
    CompleteTurnCommand,
    ConversationActorInterface,
    RunTurnInput,
    TurnContext,
    TurnOutcome,
    TurnRef,
)
from services.kit.actors import Actors
from services.kit.clock import Clock
from services.kit.errors import ErrorCode, ErrorStatus, RpcError, internal_error
from services.kit.eventlog import EventLog, NewEvent, Segment, run_segment
from services.kit.failpoints import failpoint
from services.kit.signals import Signals
from services.kit.telemetry import span_from
from services.llm.activities.generation import Answer, Generation
from services.llm.ports import LanguageModel, Prompt, TurnWorkflows

MAX_RETRY_AFTER: Final = timedelta(seconds=60)
DEFAULT_RETRY_AFTER: Final = timedelta(seconds=1)
PERMANENT: Final = frozenset({ErrorCode.NOT_FOUND, ErrorCode.ABORTED})

log = structlog.get_logger()


class _ComeBack(Exception):
    """The model failed in a way that may pass."""

    def __init__(self, after: timedelta) -> None:
        super().__init__(str(after))
        self.after = after


class TurnRunner:
    """Hosts the activity `RunTurn`."""

    def __init__(
        self,
        *,
        actors: Actors,
        events: EventLog,
        signals: Signals,
        model: LanguageModel,
        workflows: TurnWorkflows,
        clock: Clock,
        max_output_tokens: int,
    ) -> None:
        self._actors = actors
        self._events = events
        self._signals = signals
        self._model = model
        self._workflows = workflows
        self._clock = clock
        self._max_output_tokens = max_output_tokens

    async def run(self, ref: RunTurnInput) -> TurnOutcome:
        """Answer a turn, or take up the answer where an earlier attempt left it."""
        with span_from(ref.traceparent, "turn.segment", turn_id=ref.turn_id):
            return await self._run(ref)

    async def _run(self, ref: RunTurnInput) -> TurnOutcome:
        async def answer(segment: Segment) -> TurnOutcome:
            return await self._answer(segment, ref)

        try:
            outcome = await run_segment(self._events, self._signals, ref.turn_id, answer)
        except _ComeBack as later:
            return TurnOutcome(retry_after_seconds=later.after.total_seconds())
        if outcome is None and await self._reopen(ref):
            return TurnOutcome(retry_after_seconds=0.1)
        # A stream that is closed, or that another attempt writes, needs nothing of this one.
        return outcome or TurnOutcome(status=TurnStatus.COMPLETED)

    async def _reopen(self, ref: RunTurnInput) -> bool:
        """A stream may be missing when two begins of one turn raced, and the refused one cleared it away."""
        return await self._events.open(
            ref.turn_id, kind=TURN_STREAM, owner=ref.user_id, subject=ref.conversation_id
        )

    async def _answer(self, segment: Segment, ref: RunTurnInput) -> TurnOutcome:
        conversation = self._actors.get(ConversationActorInterface, ref.conversation_id)
        try:
            context = await conversation.turn_context(_turn_ref(ref))
            turn = context.turn
            if not turn.status.is_terminal:
                await self._announce(segment, turn)
                answer = await segment.step("generate", Answer, lambda: self._generate(segment, ref, context))
                await failpoint("turn.after_generate")
                completed = await conversation.complete_turn(_command(answer, context, segment))
                turn = completed.turn
                await self._start_next(ref, completed)
        except RpcError as error:
            if error.code not in PERMANENT:
                raise
            # The conversation was deleted, or another attempt ended the turn under a newer epoch.
            await segment.finish(NewEvent(EventType.RUN_CANCELLED, {}, terminal=True))
            return TurnOutcome(status=TurnStatus.CANCELLED)
        await failpoint("turn.before_terminal")
        await segment.finish(terminal_event(turn))
        await failpoint("turn.after_terminal")
        return TurnOutcome(status=turn.status)

    async def _announce(self, segment: Segment, turn: Turn) -> None:
        if segment.last_seq == 0:
            data = {"turnId": turn.turn_id, "conversationId": turn.conversation_id, "model": turn.model}
            await segment.emit([NewEvent(EventType.RUN_STARTED, data)])
            return
        kept = max(segment.checkpoint_seq, 1)
        if segment.last_seq > kept:
            await segment.emit([NewEvent(EventType.ATTEMPT_RESTARTED, {"fromSeq": kept + 1})])

    async def _generate(
        self, segment: Segment, ref: RunTurnInput, context: TurnContext
    ) -> tuple[Answer, Sequence[NewEvent]]:
        prompt = Prompt(
            model=context.turn.model,
            messages=context.messages,
            temperature=context.temperature,
            max_output_tokens=context.max_output_tokens or self._max_output_tokens,
            user=ref.user_id,
        )
        await failpoint("turn.before_model")
        generation = Generation(segment, self._model, prompt, context.deadline, self._clock)
        answer, rest = await generation.run()
        if answer.error is not None and not answer.error.is_terminal and not ref.last:
            raise _ComeBack(_retry_after(answer.error))
        return answer, rest

    async def _start_next(self, ref: RunTurnInput, completed: CompletedTurn) -> None:
        if completed.next_turn_id is not None:
            await self._workflows.start(ref.user_id, ref.conversation_id, completed.next_turn_id)


def terminal_event(turn: Turn) -> NewEvent:
    """The one event that ends a turn's stream."""
    seq = {"messageSeq": str(turn.assistant_message_seq)} if turn.assistant_message_seq else {}
    data: dict[str, Any]
    if turn.status is TurnStatus.COMPLETED:
        kind, data = EventType.RUN_COMPLETED, {"finishReason": turn.finish_reason, **seq}
    elif turn.status is TurnStatus.CANCELLED:
        kind, data = EventType.RUN_CANCELLED, seq
    else:
        error = turn.error or internal_error().to_status()
        failure = error.model_dump(mode="json", by_alias=True, exclude_none=True)
        kind, data = EventType.RUN_FAILED, {"error": failure, **seq}
    return NewEvent(kind, data, terminal=True)


def _command(answer: Answer, context: TurnContext, segment: Segment) -> CompleteTurnCommand:
    return CompleteTurnCommand(
        turn_id=context.turn.turn_id,
        epoch=context.epoch,
        status=answer.status,
        attempts=segment.number,
        text=answer.text,
        finish_reason=answer.finish_reason,
        usage=answer.usage,
        error=answer.error,
        cancel_acknowledged_at=answer.cancel_acknowledged_at,
        upstream_closed_at=answer.upstream_closed_at,
        tokens_after_cancel=answer.tokens_after_cancel,
    )


def _turn_ref(ref: RunTurnInput) -> TurnRef:
    return TurnRef(user_id=ref.user_id, conversation_id=ref.conversation_id, turn_id=ref.turn_id)


def _retry_after(status: ErrorStatus) -> timedelta:
    wanted = RpcError.from_status(status).retry_after
    return min(wanted, MAX_RETRY_AFTER) if wanted else DEFAULT_RETRY_AFTER
