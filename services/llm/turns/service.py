"""Use cases of turns: begin, wait for the answer, cancel."""

import asyncio
from datetime import timedelta
from typing import Final

from services.contracts.events import EventType
from services.contracts.llm.conversations import Admission, SendMessageRequest, SendMessageResponse
from services.contracts.llm.turns import Turn, TurnRef, TurnStatus
from services.kit.access.identity import CallerIdentity
from services.kit.clock import Clock
from services.kit.dapr.actors import Actors
from services.kit.errors import ErrorCode, RpcError
from services.kit.eventlog import Engine, Segment, StreamHead
from services.kit.failpoints import failpoint
from services.kit.http.idempotency import IdempotencyKey
from services.kit.telemetry.tracing import current_traceparent, span_from
from services.llm.actors import ConversationActorInterface
from services.llm.domain import terminal_event
from services.llm.domain.commands import BeginTurnCommand, BegunTurn, TurnContext
from services.llm.ports import LanguageModel
from services.llm.turns.events import TurnEvents
from services.llm.turns.recovery import TurnRecovery
from services.llm.turns.runner import TurnRunner, run_started, turn_stream

SEND_TIMEOUT: Final = timedelta(seconds=130)
"""Below the method's timeout of 140 s, so that the caller gets a clear error."""
RECEIPT_TIMEOUT: Final = timedelta(seconds=3)
"""How long a cancel waits for the turn's end, to return a complete receipt."""


class TurnService:
    """Use cases of turns; callers are authorized by the routes."""

    def __init__(
        self,
        *,
        actors: Actors,
        engine: Engine,
        runner: TurnRunner,
        recovery: TurnRecovery,
        events: TurnEvents,
        model: LanguageModel,
        default_model: str,
        clock: Clock,
    ) -> None:
        self._actors = actors
        self._engine = engine
        self._log = engine.log
        self._runner = runner
        self._recovery = recovery
        self._events = events
        self._model = model
        self._default_model = default_model
        self._clock = clock

    async def begin(
        self, request: SendMessageRequest, caller: CallerIdentity, key: IdempotencyKey
    ) -> TurnRef:
        """Admit a turn and make its first attempt in this process; a repeat with the same key returns the same turn.

        Its stream is opened first: recovery finds the turn by it after a crash.

        Raises:
            RpcError: TURN_IN_PROGRESS, QUOTA_EXCEEDED, MODEL_INVALID, NOT_FOUND, IDEMPOTENCY_KEY_REUSED.
        """
        if request.model:
            self._model.require_allowed(request.model)
        command = BeginTurnCommand(
            turn_id=f"turn_{key.derive('turn', request.conversation_id)}",
            key_id=caller.key_id,
            repeatable=key.explicit,
            model=request.model or self._default_model,
            request=request,
        )
        ref = TurnRef(
            user_id=caller.user_id,
            conversation_id=request.conversation_id,
            turn_id=command.turn_id,
        )
        await failpoint("turn.before_begin")
        if request.admission is Admission.ENQUEUE:
            await self._begin_or_enqueue(ref, command)
        else:
            await self._begin_now(ref, command)
        return ref

    async def answer(self, ref: TurnRef, caller: CallerIdentity) -> SendMessageResponse:
        """Wait for a turn's end. Raises the turn's error if it failed; DEADLINE_EXCEEDED while it still runs."""
        if not await self._ended_within(ref.turn_id, SEND_TIMEOUT):
            raise RpcError(
                ErrorCode.DEADLINE_EXCEEDED, f"{ref.turn_id} is still running; follow its events."
            )
        await self._events.require_view(caller, ref.conversation_id)
        answer = await self._conversation(ref).get_turn(ref)
        if answer.turn.status is TurnStatus.FAILED and answer.turn.error:
            raise RpcError.from_status(answer.turn.error)
        return SendMessageResponse(turn=answer.turn, message=answer.message)

    async def get(self, ref: TurnRef) -> Turn:
        return (await self._conversation(ref).get_turn(ref)).turn

    async def cancel(self, ref: TurnRef) -> Turn:
        """Cancel a turn, and wait up to RECEIPT_TIMEOUT for its end."""
        conversation = self._conversation(ref)
        turn = await conversation.cancel_turn(ref)
        await failpoint("turn.after_cancel_recorded")
        if turn.status.is_terminal:
            await self._log.close_stream(ref.turn_id, *terminal_event(turn))
            return turn
        await self._recovery.cancel(ref, turn)
        await self._ended_within(ref.turn_id, RECEIPT_TIMEOUT)
        return (await conversation.get_turn(ref)).turn

    async def _begin_now(self, ref: TurnRef, command: BeginTurnCommand) -> None:
        opening = [run_started(ref, command.model)]
        segment = await self._engine.admit(turn_stream(ref, self._clock()), opening)
        if segment is None:
            await self._begin_again(ref, command)
            return
        try:
            begun = await self._conversation(ref).begin_turn(command)
            await failpoint("turn.after_begin")
            context = begun.context or await self._context_of_repeat(ref, begun)
        except BaseException as error:
            await asyncio.shield(self._engine.withdraw(segment, unused=_is_refusal(error)))
            raise
        if context is None:
            await self._engine.withdraw(segment, unused=False)
        else:
            self._run(segment, ref, context)

    def _run(self, segment: Segment, ref: TurnRef, context: TurnContext) -> None:
        """Make the first attempt at an admitted turn in the background."""
        traceparent = current_traceparent()

        async def work(segment: Segment) -> None:
            with span_from(traceparent, "turn.segment", turn_id=ref.turn_id):
                await self._runner.run(segment, ref, context)

        self._engine.begin(segment, work)

    async def _context_of_repeat(self, ref: TurnRef, begun: BegunTurn) -> TurnContext | None:
        """The context of a turn that an earlier delivery of the call admitted; None while it is queued."""
        if begun.turn.status is TurnStatus.QUEUED:
            return None
        return await self._conversation(ref).turn_context(ref)

    async def _begin_or_enqueue(self, ref: TurnRef, command: BeginTurnCommand) -> None:
        if not await self._log.open(turn_stream(ref, self._clock())):
            await self._begin_again(ref, command)
            return
        try:
            begun = await self._conversation(ref).begin_turn(command)
        except RpcError as error:
            if _is_refusal(error):
                await self._log.discard(ref.turn_id, 0)
            raise
        await self._ensure_begun(ref, begun)

    async def _begin_again(self, ref: TurnRef, command: BeginTurnCommand) -> None:
        """Repeat a call whose stream exists; its host may have died before it admitted the turn."""
        head = await self._log.head(ref.turn_id)
        if head is not None:
            _require_subject(head, ref)
        await self._ensure_begun(ref, await self._conversation(ref).begin_turn(command))

    async def _ensure_begun(self, ref: TurnRef, begun: BegunTurn) -> None:
        await failpoint("turn.after_begin")
        if begun.turn.status is TurnStatus.RUNNING:
            await self._recovery.ensure_begun(ref, begun.turn)

    async def _ended_within(self, turn_id: str, limit: timedelta) -> bool:
        try:
            async with asyncio.timeout(limit.total_seconds()):
                async for batch in self._log.follow(turn_id):
                    if batch and EventType(batch[-1].type).is_terminal:
                        return True
        except TimeoutError:
            pass
        except RpcError as error:
            if error.code is not ErrorCode.OUT_OF_RANGE:
                raise
            return True  # retention has deleted its earlier events
        return False

    def _conversation(self, ref: TurnRef) -> ConversationActorInterface:
        return self._actors.get(ConversationActorInterface, ref.conversation_id)


def _is_refusal(error: BaseException) -> bool:
    """Whether the turn was certainly not admitted; for other failures recovery finds out."""
    return isinstance(error, RpcError) and error.status < 500 and not error.retryable


def _require_subject(head: StreamHead, ref: TurnRef) -> None:
    if head.subject != ref.conversation_id:
        raise RpcError(
            ErrorCode.IDEMPOTENCY_KEY_REUSED,
            "This Idempotency-Key was used in another conversation.",
        )
