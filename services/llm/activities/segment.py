"""One segment of a turn: generate, then commit; each is checkpointed before the next begins.

The activity may run twice, at once even: `generate` is taken from its checkpoint when an attempt has finished it,
`commit` is fenced by the turn's epoch, and every event by the attempt.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import structlog

from services.contracts.conversations import Turn, TurnStatus
from services.contracts.events import EventType
from services.contracts.turns import (
    TURN_STREAM,
    Answer,
    CompleteTurnCommand,
    ConversationActorInterface,
    RunTurnInput,
    TurnContext,
    TurnOutcome,
)
from services.kit.actors import Actors
from services.kit.clock import Clock
from services.kit.errors import ErrorCode, ErrorStatus, RpcError
from services.kit.eventlog import EventLog, NewEvent, Occupancy, Segment, run_segment
from services.kit.failpoints import failpoint
from services.kit.signals import Signals
from services.kit.telemetry import span_from
from services.kit.waiting import wait_for
from services.llm.activities.generation import Generation
from services.llm.domain import ending
from services.llm.ports import Charges, LanguageModel, Prompt, TurnWorkflows

MAX_RETRY_AFTER: Final = timedelta(seconds=60)
SUPERSEDED_SECONDS: Final = 0.5
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
        charges: Charges,
        clock: Clock,
        max_output_tokens: int,
    ) -> None:
        self._actors = actors
        self._events = events
        self._signals = signals
        self._model = model
        self._workflows = workflows
        self._charges = charges
        self._clock = clock
        self._max_output_tokens = max_output_tokens
        self._begun: set[asyncio.Task[None]] = set()

    async def run(self, ref: RunTurnInput) -> TurnOutcome:
        """The activity: see the turn to its end.

        The host that admitted the turn has usually begun it already (`begin_at_once`): then this waits, and takes
        over when that attempt gives up or falls silent.
        """
        with span_from(ref.traceparent, "turn.segment", turn_id=ref.turn_id):
            found = await self._events.wait_until_free(ref.turn_id)
            if found is Occupancy.CLOSED:
                return TurnOutcome(status=TurnStatus.COMPLETED)
            if found is Occupancy.MISSING:
                await self._reopen(ref)
            try:
                outcome = await self._attempt(ref, None)
            except _ComeBack as later:
                return TurnOutcome(retry_after_seconds=later.after.total_seconds())
            # Another attempt began meanwhile: come back, and wait for it.
            return outcome or TurnOutcome(retry_after_seconds=SUPERSEDED_SECONDS)

    def begin_at_once(self, ref: RunTurnInput, context: TurnContext) -> None:
        """Begin the first attempt here and now, and start the workflow that guarantees it.

        Should both be lost with this process, the sweep finds the turn by its open stream.
        """
        begun = asyncio.Event()
        for work in (self._begin(ref, context, begun), self._guarantee(ref, begun)):
            task = asyncio.create_task(work, name=f"turn {ref.turn_id}")
            self._begun.add(task)
            task.add_done_callback(self._begun.discard)

    async def end_if_free(self, ref: RunTurnInput) -> None:
        """End a cancelled turn that nobody works on now: one that waits to be tried again, or whose host died."""
        if await self._events.occupancy(ref.turn_id) is Occupancy.FREE:
            await self._attempt(ref, None)

    async def drain(self, grace: timedelta) -> None:
        """Let what was begun here end for a while; then leave it to the workflow."""
        if self._begun:
            await asyncio.wait(self._begun, timeout=grace.total_seconds())
        for task in list(self._begun):
            task.cancel()
        await asyncio.gather(*self._begun, return_exceptions=True)

    async def _begin(self, ref: RunTurnInput, context: TurnContext, begun: asyncio.Event) -> None:
        try:
            await self._attempt(ref, context, begun)
        except _ComeBack:
            return  # the workflow tries again
        except Exception:
            log.warning("turn.first_attempt_failed", turn_id=ref.turn_id, exc_info=True)
        finally:
            begun.set()

    async def _guarantee(self, ref: RunTurnInput, begun: asyncio.Event) -> None:
        await begun.wait()  # a workflow that finds the stream free asks the model too
        try:
            await self._workflows.start(ref)
        except RpcError as error:
            log.warning("turn.workflow_not_started", turn_id=ref.turn_id, code=error.code)

    async def _attempt(
        self, ref: RunTurnInput, context: TurnContext | None, begun: asyncio.Event | None = None
    ) -> TurnOutcome | None:
        first = context is not None

        async def answer(segment: Segment) -> TurnOutcome:
            if begun is not None:
                begun.set()
            try:
                return await self._answer(segment, ref, context)
            except _ComeBack as later:
                if first:  # hold the stream until the workflow may try again
                    await wait_for(segment.stop, later.after.total_seconds())
                raise

        return await run_segment(self._events, self._signals, ref.turn_id, answer, first=first)

    async def _reopen(self, ref: RunTurnInput) -> None:
        """A stream may be missing when two begins of one turn raced, and the refused one cleared it away."""
        await self._events.open(
            ref.turn_id, kind=TURN_STREAM, owner=ref.user_id, subject=ref.conversation_id
        )

    async def _answer(
        self, segment: Segment, ref: RunTurnInput, known: TurnContext | None
    ) -> TurnOutcome:
        conversation = self._actors.get(ConversationActorInterface, ref.conversation_id)
        try:
            context = known or await conversation.turn_context(ref)
            turn, key_id, next_turn_id = context.turn, context.key_id, None
            if not turn.status.is_terminal:
                answer = await segment.step(
                    "generate", Answer, lambda: self._generate(segment, ref, context)
                )
                await failpoint("turn.after_generate")
                completed = await conversation.complete_turn(_command(answer, context, segment))
                turn, next_turn_id = completed.turn, completed.next_turn_id
        except RpcError as error:
            if error.code not in PERMANENT:
                raise
            # The conversation was deleted, or another attempt ended the turn under a newer epoch.
            await segment.finish(EventType.RUN_CANCELLED, {})
            return TurnOutcome(status=TurnStatus.CANCELLED)
        if next_turn_id is not None:
            await self._workflows.start(ref.model_copy(update={"turn_id": next_turn_id}))
        await charge(self._charges, turn, key_id)
        await failpoint("turn.before_terminal")
        await segment.finish(*ending(turn))
        await failpoint("turn.after_terminal")
        return TurnOutcome(status=turn.status)

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
        generation = Generation(
            segment,
            self._model,
            prompt,
            context.deadline,
            self._clock,
            opening=_opening(segment, context.turn),
        )
        answer, rest = await generation.run()
        again = not ref.last and self._clock() < context.deadline
        if again and answer.error is not None and not answer.error.is_terminal:
            raise _ComeBack(_retry_after(answer.error))
        return answer, rest


async def charge(charges: Charges, turn: Turn, key_id: str | None) -> None:
    """Book an ended turn on the key that asked for it. The stream stays open until then, so it is not forgotten."""
    cost = turn.usage.cost if turn.usage else None
    if key_id and cost:
        await charges.charge(key_id, turn.turn_id, cost)
        await failpoint("turn.after_charge")


def _opening(segment: Segment, turn: Turn) -> list[NewEvent]:
    """What tells readers where they stand: the run begins, or what they saw of an attempt is void."""
    if segment.last_seq == 0:
        data = {"turnId": turn.turn_id, "conversationId": turn.conversation_id, "model": turn.model}
        return [NewEvent(EventType.RUN_STARTED, data)]
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
