"""Turns as durable work: what recovery does with them, and the activity of the workflow that holds their waits."""

from typing import Any, Final

from services.contracts.events import EventType
from services.contracts.llm.turns import (
    TURN_STREAM,
    RunTurnInput,
    Turn,
    TurnOutcome,
    TurnRef,
    TurnStatus,
)
from services.kit.clock import Clock
from services.kit.dapr.actors import Actors
from services.kit.errors import ErrorCode, RpcError
from services.kit.eventlog import Engine, RetryLater, Segment, StreamHead
from services.kit.failpoints import failpoint
from services.kit.telemetry.tracing import span_from
from services.llm.actors import ConversationActorInterface
from services.llm.ports import Charges
from services.llm.turns.runner import (
    WORKFLOW_GRACE,
    Attempt,
    TurnRunner,
    run_started,
    turn_stream,
)

SUPERSEDED_SECONDS: Final = 0.5


class TurnRecovery:
    """The `WorkKind` of turns, and the activity `RunTurn`."""

    name = TURN_STREAM

    def __init__(
        self,
        *,
        engine: Engine,
        actors: Actors,
        runner: TurnRunner,
        charges: Charges,
        clock: Clock,
    ) -> None:
        self._engine = engine
        self._actors = actors
        self._runner = runner
        self._charges = charges
        self._clock = clock

    # --- the kind of work ---

    async def run(self, segment: Segment) -> None:
        """Make one attempt at a turn."""
        stream = segment.attempt.stream
        ref = TurnRef(
            user_id=stream.owner, conversation_id=stream.subject, turn_id=stream.stream_id
        )
        await self._runner.run(segment, ref)

    async def recover(self, head: StreamHead) -> bool:
        """Whether the turn shall be worked on: not while it waits in a queue, nor when there is no such turn."""
        ref = TurnRef(user_id=head.owner, conversation_id=head.subject, turn_id=head.stream_id)
        try:
            turn = (await self._conversation(ref).get_turn(ref)).turn
        except RpcError as error:
            if error.code is not ErrorCode.NOT_FOUND:
                raise
            await self._end_without_turn(head, ref)
            return False
        return turn.status is not TurnStatus.QUEUED

    async def settle(self, stream_id: str, owed: Any) -> None:
        """Book what an ended turn cost on the key that asked for it, once per turn."""
        await self._charges.charge(owed["keyId"], stream_id, owed["amount"])
        await failpoint("turn.after_charge")

    # --- the activity ---

    async def run_turn(self, request: RunTurnInput) -> TurnOutcome:
        """Make the next attempt once nobody makes one."""
        with span_from(request.traceparent, "turn.segment", turn_id=request.turn_id):
            head = await self._engine.log.wait_until_free(request.turn_id)
            if head is None or head.closed_at is not None:
                return TurnOutcome(status=TurnStatus.COMPLETED)
            outcome = TurnOutcome(retry_after_seconds=SUPERSEDED_SECONDS)
            attempt = Attempt(by_workflow=True, last=request.last)

            async def work(segment: Segment) -> None:
                nonlocal outcome
                try:
                    await self._runner.run(segment, request, attempt=attempt)
                except RetryLater as later:
                    wait = later.after - WORKFLOW_GRACE
                    outcome = TurnOutcome(retry_after_seconds=wait.total_seconds())
                    raise
                outcome = TurnOutcome(status=TurnStatus.COMPLETED)

            task = await self._engine.take(request.turn_id, work)
            if task is not None:
                await task
            return outcome

    # --- turns whose stream is missing ---

    async def ensure_begun(self, ref: TurnRef, turn: Turn) -> None:
        """See to it that somebody works on a running turn, whatever became of its stream."""
        while await self._engine.take(ref.turn_id) is None:
            if await self._engine.log.head(ref.turn_id) is not None:
                return  # its host, or recovery, works on it
            segment = await self._reopen(ref, turn)
            if segment is not None:
                self._engine.begin(segment)
                return

    async def cancel(self, ref: TurnRef, turn: Turn) -> None:
        """Ask whoever works on a running turn to stop; one whose stream is missing is ended here."""
        if await self._engine.cancel(ref.turn_id):
            return
        if await self._engine.log.head(ref.turn_id) is None:
            segment = await self._reopen(ref, turn)
            if segment is not None:
                segment.stop.set()
                self._engine.begin(segment)

    async def _reopen(self, ref: TurnRef, turn: Turn) -> Segment | None:
        opening = [run_started(ref, turn.model)]
        return await self._engine.admit(turn_stream(ref, self._clock()), opening)

    async def _end_without_turn(self, head: StreamHead, ref: TurnRef) -> None:
        """A turn that was never admitted leaves nothing; that of a deleted conversation ends, and goes with its purge."""
        never_begun = head.last_seq <= 1 and head.attempt <= 1
        if never_begun and await self._conversation_exists(ref):
            await self._engine.log.forget([head.stream_id])
        else:
            await self._engine.log.close_stream(head.stream_id, EventType.RUN_CANCELLED, {})

    async def _conversation_exists(self, ref: TurnRef) -> bool:
        try:
            await self._conversation(ref).read()
        except RpcError as error:
            if error.code is not ErrorCode.NOT_FOUND:
                raise
            return False
        return True

    def _conversation(self, ref: TurnRef) -> ConversationActorInterface:
        return self._actors.get(ConversationActorInterface, ref.conversation_id)
