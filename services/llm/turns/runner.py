"""Sees turns to their end: ask the model, commit the answer, close the stream; each repeatable.

An attempt may run twice, at once even: the answer is taken from its checkpoint when an attempt has written it, the
commit is fenced by the turn's epoch, and every event by the attempt.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

import structlog

from services.contracts.conversations import Turn, TurnStatus
from services.contracts.events import EventType
from services.contracts.turns import (
    MAX_TURN_TIME,
    TURN_STREAM,
    Answer,
    CompleteTurnCommand,
    ConversationActorInterface,
    GenerationInput,
    RunTurnInput,
    TurnContext,
    TurnOutcome,
    TurnRef,
)
from services.kit.clock import Clock
from services.kit.dapr.actors import Actors
from services.kit.errors import ErrorCode, ErrorStatus, RpcError
from services.kit.eventlog import Engine, NewEvent, NewStream, RetryLater, Segment, StreamHead
from services.kit.failpoints import failpoint
from services.kit.telemetry.tracing import current_traceparent, span_from
from services.llm.domain import ending, owed_charge
from services.llm.ports import Charges, LanguageModel, Prompt, TurnWorkflows
from services.llm.turns.model_call import ModelCall
from services.llm.turns.usage import UsageMeter

MAX_ATTEMPTS: Final = 12
"""Attempts of a turn by whoever makes them; the last one ends it."""
MAX_RETRY_AFTER: Final = timedelta(seconds=60)
DEFAULT_RETRY_AFTER: Final = timedelta(seconds=1)
WORKFLOW_GRACE: Final = timedelta(seconds=10)
"""How much later than the workflow recovery makes the next attempt, should the workflow not."""
SUPERSEDED_SECONDS: Final = 0.5
SHORTEST_ATTEMPT: Final = timedelta(seconds=1)
"""With less time left no other attempt is made: its timer may end a moment before the clock says that it is due."""
PERMANENT: Final = frozenset({ErrorCode.NOT_FOUND, ErrorCode.ABORTED})

log = structlog.get_logger()


class TurnRunner:
    """The kind of durable work that a turn is, and the activity `RunTurn`."""

    name = TURN_STREAM

    def __init__(
        self,
        *,
        engine: Engine,
        actors: Actors,
        model: LanguageModel,
        workflows: TurnWorkflows,
        charges: Charges,
        usage: UsageMeter,
        clock: Clock,
        max_output_tokens: int,
    ) -> None:
        self._engine = engine
        self._usage = usage
        self._actors = actors
        self._model = model
        self._workflows = workflows
        self._charges = charges
        self._clock = clock
        self._max_output_tokens = max_output_tokens

    # --- the kind of work ---

    async def run(self, segment: Segment) -> None:
        """Make one attempt at a turn."""
        await self._answer(segment, _ref(segment.attempt.stream), None)

    async def recover(self, head: StreamHead) -> bool:
        """Whether the turn shall be worked on: not while it waits in a queue, nor when there is no such turn."""
        ref = TurnRef(user_id=head.owner, conversation_id=head.subject, turn_id=head.stream_id)
        try:
            turn = (await self._conversation(ref).get_turn(ref)).turn
        except RpcError as error:
            if error.code is not ErrorCode.NOT_FOUND:
                raise
            await self._give_up(head, ref)
            return False
        return turn.status is not TurnStatus.QUEUED

    async def settle(self, stream_id: str, owed: Any) -> None:
        """Book what an ended turn cost on the key that asked for it, once per turn."""
        await self._charges.charge(owed["keyId"], stream_id, owed["amount"])
        await failpoint("turn.after_charge")

    # --- beginning ---

    async def admit(self, ref: TurnRef, model: str) -> Segment | None:
        """Open a turn's stream with `run.started` and its first attempt; None where the stream exists."""
        return await self._engine.admit(self._stream(ref), [_started(ref, model)])

    async def open(self, ref: TurnRef) -> bool:
        """Open the stream of a turn that may have to wait; whether it is new."""
        return await self._engine.log.open(self._stream(ref))

    async def withdraw(self, segment: Segment, *, unused: bool) -> None:
        """Give up a stream that was opened for a turn which is not worked on here."""
        await self._engine.withdraw(segment, unused=unused)

    def begin(self, segment: Segment, ref: TurnRef, context: TurnContext) -> None:
        """Work on an admitted turn here and now."""
        traceparent = current_traceparent()

        async def work(segment: Segment) -> None:
            with span_from(traceparent, "turn.segment", turn_id=ref.turn_id):
                await self._answer(segment, ref, context)

        self._engine.begin(segment, work)

    async def ensure_begun(self, ref: TurnRef, turn: Turn) -> None:
        """See to it that somebody works on a running turn, whatever became of its stream."""
        while True:
            if await self._engine.take(ref.turn_id) is not None:
                return
            head = await self._engine.log.head(ref.turn_id)
            if head is not None:
                return  # its host, or recovery, works on it
            segment = await self.admit(ref, turn.model)
            if segment is not None:
                self._engine.begin(segment)
                return

    async def cancel(self, ref: TurnRef, turn: Turn) -> None:
        """Ask whoever works on a running turn to stop; one whose stream is missing is ended here."""
        if await self._engine.cancel(ref.turn_id):
            return
        if await self._engine.log.head(ref.turn_id) is None:
            segment = await self.admit(ref, turn.model)
            if segment is not None:
                segment.stop.set()
                self._engine.begin(segment)

    # --- the activity ---

    async def run_turn(self, ref: RunTurnInput) -> TurnOutcome:
        """The activity: make the next attempt once nobody makes one."""
        with span_from(ref.traceparent, "turn.segment", turn_id=ref.turn_id):
            head = await self._engine.log.wait_until_free(ref.turn_id)
            if head is None or head.closed_at is not None:
                return TurnOutcome(status=TurnStatus.COMPLETED)
            outcome = TurnOutcome(retry_after_seconds=SUPERSEDED_SECONDS)

            async def work(segment: Segment) -> None:
                nonlocal outcome
                try:
                    await self._answer(segment, ref, None, last=ref.last, by_workflow=True)
                except RetryLater as later:
                    wait = later.after - WORKFLOW_GRACE
                    outcome = TurnOutcome(retry_after_seconds=wait.total_seconds())
                    raise
                outcome = TurnOutcome(status=TurnStatus.COMPLETED)

            task = await self._engine.take(ref.turn_id, work)
            if task is not None:
                await task
            return outcome

    # --- one attempt ---

    async def _answer(
        self,
        segment: Segment,
        ref: TurnRef,
        known: TurnContext | None,
        *,
        last: bool = False,
        by_workflow: bool = False,
    ) -> None:
        conversation = self._conversation(ref)
        try:
            context = known or await conversation.turn_context(ref)
            turn, key_id, next_turn_id = context.turn, context.key_id, None
            if not turn.status.is_terminal:
                answer = await segment.step(
                    "generate",
                    Answer,
                    lambda: self._generate(segment, ref, context, last, by_workflow),
                )
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
            await self._hand_over(ref, next_turn_id)

    async def _hand_over(self, ref: TurnRef, next_turn_id: str) -> None:
        """Begin the next turn of the queue; recovery does where this fails."""
        try:
            await self._engine.take(next_turn_id)
        except RpcError as error:
            log.warning("turn.not_handed_over", turn_id=next_turn_id, code=error.code)

    async def _generate(
        self,
        segment: Segment,
        ref: TurnRef,
        context: TurnContext,
        last: bool,
        by_workflow: bool,
    ) -> tuple[Answer, Sequence[NewEvent]]:
        prompt = Prompt(
            model=context.turn.model,
            messages=context.messages,
            temperature=context.temperature,
            max_output_tokens=context.max_output_tokens or self._max_output_tokens,
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
        last = last or too_late or segment.number >= MAX_ATTEMPTS
        if not last and answer.error is not None and not answer.error.is_terminal:
            after = _retry_after(answer.error)
            raise RetryLater(await self._wait_by_workflow(ref, after, by_workflow))
        usage = await self._usage.of_turn(segment, prompt, answer)
        if usage is None:
            return answer, rest
        counted = usage.model_dump(mode="json", by_alias=True, exclude_none=True)
        event = NewEvent(EventType.USAGE, counted)
        return answer.model_copy(update={"usage": usage}), [*rest, event]

    async def _wait_by_workflow(
        self, ref: TurnRef, after: timedelta, by_workflow: bool
    ) -> timedelta:
        """Let the workflow hold the wait; how long recovery leaves the stream to it."""
        if by_workflow:
            return after + WORKFLOW_GRACE
        turn = GenerationInput(
            **ref.model_dump(),
            traceparent=current_traceparent(),
            retry_after_seconds=after.total_seconds(),
        )
        try:
            await self._workflows.start(turn)
        except RpcError as error:  # recovery holds the wait
            log.warning("turn.workflow_not_started", turn_id=ref.turn_id, code=error.code)
            return after
        return after + WORKFLOW_GRACE

    async def _give_up(self, head: StreamHead, ref: TurnRef) -> None:
        """A turn that was never admitted leaves nothing; that of a deleted conversation ends, and goes with its purge."""
        never_begun = head.last_seq <= 1 and head.attempt <= 1
        if never_begun and await self._is_there(ref):
            await self._engine.log.forget([head.stream_id])
        else:
            await self._engine.log.close_stream(head.stream_id, EventType.RUN_CANCELLED, {})

    async def _is_there(self, ref: TurnRef) -> bool:
        try:
            await self._conversation(ref).read()
        except RpcError as error:
            if error.code is not ErrorCode.NOT_FOUND:
                raise
            return False
        return True

    def _stream(self, ref: TurnRef) -> NewStream:
        return NewStream(
            ref.turn_id,
            TURN_STREAM,
            ref.user_id,
            ref.conversation_id,
            deadline=self._clock() + MAX_TURN_TIME,
        )

    def _conversation(self, ref: TurnRef) -> ConversationActorInterface:
        return self._actors.get(ConversationActorInterface, ref.conversation_id)


def _ref(stream: NewStream) -> TurnRef:
    return TurnRef(user_id=stream.owner, conversation_id=stream.subject, turn_id=stream.stream_id)


def _started(ref: TurnRef, model: str) -> NewEvent:
    data = {"turnId": ref.turn_id, "conversationId": ref.conversation_id, "model": model}
    return NewEvent(EventType.RUN_STARTED, data)


def _opening(segment: Segment, ref: TurnRef, turn: Turn) -> list[NewEvent]:
    """What tells readers where they stand: the run begins, or what they saw of an attempt is void."""
    if segment.last_seq == 0:
        return [_started(ref, turn.model)]
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
