"""Leaves no turn behind: a turn that nobody drives gets its workflow, or its end.

A turn's stream is opened before the turn is admitted, so whatever died on the way, the open stream is found here.
"""

from datetime import timedelta
from typing import Final

import structlog

from services.contracts.conversations import Turn, TurnStatus
from services.contracts.events import EventType
from services.contracts.turns import (
    TURN_STREAM,
    CompleteTurnCommand,
    ConversationActorInterface,
    TurnRef,
)
from services.contracts.workflows import WorkflowStatus
from services.kit.actors import Actors
from services.kit.errors import ErrorCode, RpcError, internal_error
from services.kit.eventlog import EventLog, StreamHead
from services.llm.activities.segment import charge
from services.llm.domain import ending
from services.llm.ports import Charges, TurnWorkflows

BATCH: Final = 50

log = structlog.get_logger()


class TurnSweep:
    """Looks after open streams that have been idle for a while; each is looked at by one replica."""

    def __init__(
        self,
        *,
        actors: Actors,
        events: EventLog,
        workflows: TurnWorkflows,
        charges: Charges,
        idle: timedelta,
    ) -> None:
        self._actors = actors
        self._events = events
        self._workflows = workflows
        self._charges = charges
        self._idle = idle

    async def run(self) -> None:
        """Look once."""
        for head in await self._events.idle(TURN_STREAM, self._idle, BATCH):
            try:
                await self._drive(head)
            except RpcError as error:
                log.warning("sweep.postponed", turn_id=head.stream_id, code=error.code)

    async def _drive(self, head: StreamHead) -> None:
        conversation = self._actors.get(ConversationActorInterface, head.subject)
        try:
            found = await conversation.get_turn(_ref(head))
        except RpcError as error:
            if error.code is not ErrorCode.NOT_FOUND:
                raise
            await self._give_up(head)
            return
        turn = found.turn
        if turn.status.is_terminal:
            await charge(self._charges, turn, found.key_id)
            await self._events.close_stream(head.stream_id, *ending(turn))
        elif turn.status is TurnStatus.RUNNING:
            await self._ensure_workflow(head, turn)

    async def _give_up(self, head: StreamHead) -> None:
        """A turn that was never admitted, or whose conversation is gone."""
        if head.last_seq == 0:
            await self._events.forget([head.stream_id])
        else:
            await self._events.close_stream(head.stream_id, EventType.RUN_CANCELLED, {})

    async def _ensure_workflow(self, head: StreamHead, turn: Turn) -> None:
        status = await self._workflows.status(head.stream_id)
        if status is WorkflowStatus.MISSING:
            log.info("sweep.started", turn_id=head.stream_id)
            await self._workflows.start(_ref(head))
        elif status is WorkflowStatus.ENDED:
            await self._fail(head, turn)

    async def _fail(self, head: StreamHead, turn: Turn) -> None:
        """The workflow ended without ending the turn: nothing else will."""
        conversation = self._actors.get(ConversationActorInterface, head.subject)
        context = await conversation.turn_context(_ref(head))
        completed = await conversation.complete_turn(
            CompleteTurnCommand(
                turn_id=turn.turn_id,
                epoch=context.epoch,
                status=TurnStatus.FAILED,
                attempts=head.attempt,
                error=internal_error().to_status(),
            )
        )
        await self._events.close_stream(head.stream_id, *ending(completed.turn))
        if completed.next_turn_id is not None:
            await self._workflows.start(
                _ref(head).model_copy(update={"turn_id": completed.next_turn_id})
            )


def _ref(head: StreamHead) -> TurnRef:
    return TurnRef(user_id=head.owner, conversation_id=head.subject, turn_id=head.stream_id)
