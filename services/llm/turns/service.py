"""The use cases of turns: begin, follow to the end, cancel."""

import asyncio
from datetime import timedelta
from typing import Final

from services.contracts.conversations import Admission, SendMessageRequest, Turn, TurnStatus
from services.contracts.events import EventType
from services.contracts.turns import (
    BeginTurnCommand,
    BegunTurn,
    ConversationActorInterface,
    TurnContext,
    TurnRef,
)
from services.kit.access.identity import CallerIdentity
from services.kit.dapr.actors import Actors
from services.kit.errors import ErrorCode, RpcError
from services.kit.eventlog import EventLog, StreamHead
from services.kit.failpoints import failpoint
from services.kit.http.idempotency import IdempotencyKey
from services.llm.domain import ending
from services.llm.ports import LanguageModel
from services.llm.turns.runner import TurnRunner

RECEIPT_TIMEOUT: Final = timedelta(seconds=3)
"""How long a cancel waits for the receipt to be complete."""


class TurnService:
    """What a caller may do with turns, once it has been authorized."""

    def __init__(
        self,
        *,
        actors: Actors,
        events: EventLog,
        runner: TurnRunner,
        model: LanguageModel,
        default_model: str,
    ) -> None:
        self._actors = actors
        self._events = events
        self._runner = runner
        self._model = model
        self._default_model = default_model

    async def begin(
        self, request: SendMessageRequest, caller: CallerIdentity, key: IdempotencyKey
    ) -> TurnRef:
        """Admit a turn, durably, and begin it here; a repeat with the same key finds the same turn.

        Its stream is opened first, so whatever dies after that, recovery finds the turn by it.

        Raises:
            RpcError: TURN_IN_PROGRESS, QUOTA_EXCEEDED, MODEL_INVALID, NOT_FOUND, IDEMPOTENCY_KEY_REUSED.
        """
        if request.model:
            self._model.check(request.model)
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
            await self._begin_or_wait(ref, command)
        else:
            await self._begin_now(ref, command)
        return ref

    async def _begin_now(self, ref: TurnRef, command: BeginTurnCommand) -> None:
        segment = await self._runner.admit(ref, command.model)
        if segment is None:
            await self._begin_again(ref, command)
            return
        try:
            begun = await self._conversation(ref).begin_turn(command)
            await failpoint("turn.after_begin")
            context = begun.context or await self._context_of_repeat(ref, begun)
        except BaseException as error:
            await asyncio.shield(self._runner.withdraw(segment, unused=_is_refusal(error)))
            raise
        if context is None:
            await self._runner.withdraw(segment, unused=False)
        else:
            self._runner.begin(segment, ref, context)

    async def _context_of_repeat(self, ref: TurnRef, begun: BegunTurn) -> TurnContext | None:
        """The context of a turn that another delivery of the call admitted; None while it waits in the queue."""
        if begun.turn.status is TurnStatus.QUEUED:
            return None
        return await self._conversation(ref).turn_context(ref)

    async def _begin_again(self, ref: TurnRef, command: BeginTurnCommand) -> None:
        """A repeat, or the first call's stream outlived its host before the turn was admitted."""
        head = await self._events.head(ref.turn_id)
        if head is not None:
            _require_subject(head, ref)
        begun = await self._conversation(ref).begin_turn(command)
        await failpoint("turn.after_begin")
        if begun.turn.status is TurnStatus.RUNNING:
            await self._runner.ensure_begun(ref, begun.turn)

    async def _begin_or_wait(self, ref: TurnRef, command: BeginTurnCommand) -> None:
        if not await self._runner.open(ref):
            await self._begin_again(ref, command)
            return
        try:
            begun = await self._conversation(ref).begin_turn(command)
        except RpcError as error:
            if _is_refusal(error):
                await self._events.discard(ref.turn_id, 0)
            raise
        await failpoint("turn.after_begin")
        if begun.turn.status is TurnStatus.RUNNING:
            await self._runner.ensure_begun(ref, begun.turn)

    async def cancel(self, ref: TurnRef) -> Turn:
        """Ask a turn to stop, and wait a little for the receipt."""
        conversation = self._conversation(ref)
        turn = await conversation.cancel_turn(ref)
        await failpoint("turn.after_cancel_recorded")
        if turn.status.is_terminal:
            await self._events.close_stream(ref.turn_id, *ending(turn))
            return turn
        await self._runner.cancel(ref, turn)
        await self.ended_within(ref.turn_id, RECEIPT_TIMEOUT)
        return (await conversation.get_turn(ref)).turn

    async def ended_within(self, turn_id: str, limit: timedelta) -> bool:
        """Wait for a turn's end; whether it came."""
        try:
            async with asyncio.timeout(limit.total_seconds()):
                async for batch in self._events.follow(turn_id):
                    if batch and EventType(batch[-1].type).is_terminal:
                        return True
        except TimeoutError:
            pass
        except RpcError as error:
            if error.code is not ErrorCode.OUT_OF_RANGE:
                raise
            return True  # so long ago that only its end is kept
        return False

    def _conversation(self, ref: TurnRef) -> ConversationActorInterface:
        return self._actors.get(ConversationActorInterface, ref.conversation_id)


def _is_refusal(error: BaseException) -> bool:
    """Whether the turn was certainly not admitted; after any other failure recovery finds out."""
    return isinstance(error, RpcError) and error.status < 500 and not error.retryable


def _require_subject(head: StreamHead, ref: TurnRef) -> None:
    if head.subject != ref.conversation_id:
        raise RpcError(
            ErrorCode.IDEMPOTENCY_KEY_REUSED, "This Idempotency-Key was used for something else."
        )
