"""Recovery of turns: after a crash (kit's engine) and after a retryable failure (activity of `GenerationWorkflow`)."""

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
    AttemptOptions,
    TurnRunner,
    run_started,
    turn_stream,
)

SUPERSEDED_SECONDS: Final = 0.5
"""Delay of the workflow's retry when another host makes the attempt."""


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

    async def run(self, segment: Segment) -> None:
        stream = segment.attempt.stream
        ref = TurnRef(
            user_id=stream.owner, conversation_id=stream.subject, turn_id=stream.stream_id
        )
        await self._runner.run(segment, ref)

    async def recover(self, head: StreamHead) -> bool:
        """Whether to make an attempt: not at a queued turn, nor at a stream without a turn, which is closed."""
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
        """Charge an ended turn's cost to its API key, once per turn."""
        await self._charges.charge(owed["keyId"], stream_id, owed["amount"])
        await failpoint("turn.after_charge")

    async def run_turn(self, request: RunTurnInput) -> TurnOutcome:
        """The activity `RunTurn`: make the next attempt once the current one has ended."""
        with span_from(request.traceparent, "turn.segment", turn_id=request.turn_id):
            head = await self._engine.log.wait_until_free(request.turn_id)
            if head is None or head.closed_at is not None:
                return TurnOutcome(status=TurnStatus.COMPLETED)
            outcome = TurnOutcome(retry_after_seconds=SUPERSEDED_SECONDS)
            options = AttemptOptions(by_workflow=True, last=request.last)

            async def work(segment: Segment) -> None:
                nonlocal outcome
                try:
                    await self._runner.run(segment, request, options=options)
                except RetryLater as later:
                    wait = later.after - WORKFLOW_GRACE
                    outcome = TurnOutcome(retry_after_seconds=wait.total_seconds())
                    raise
                outcome = TurnOutcome(status=TurnStatus.COMPLETED)

            task = await self._engine.take_over(request.turn_id, work)
            if task is not None:
                await task
            return outcome

    async def ensure_begun(self, ref: TurnRef, turn: Turn) -> None:
        """Make sure that a running turn has an open stream with an attempt."""
        while await self._engine.take_over(ref.turn_id) is None:
            if await self._engine.log.head(ref.turn_id) is not None:
                return  # its host or recovery makes the attempt
            segment = await self._reopen(ref, turn)
            if segment is not None:
                self._engine.begin(segment)
                return

    async def cancel(self, ref: TurnRef, turn: Turn) -> None:
        """Signal the host of a running turn to stop; end a turn whose stream is missing."""
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
        """Delete the stream of a turn never admitted; close that of a deleted conversation, whose purge deletes it."""
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
