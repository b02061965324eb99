"""Reads a turn's events: pages, long polls and streams."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Final

from services.contracts.auth.authorization import EDITOR, VIEWER
from services.contracts.events import Event, EventType
from services.contracts.llm.conversations import (
    CancelTurnRequest,
    GetTurnRequest,
    ListEventsRequest,
    ListEventsResponse,
    StreamEventsRequest,
)
from services.contracts.llm.turns import TurnRef
from services.kit.access.cache import AccessCache, AccessCheck
from services.kit.access.identity import CallerIdentity
from services.kit.dapr.actors import Actors
from services.kit.errors import ErrorCode, RpcError, not_found
from services.kit.eventlog import EventLog, StoredEvent
from services.kit.http.draining import Draining
from services.kit.http.sse import HEARTBEAT_SECONDS, follow_as_sse, to_json
from services.llm.actors import ConversationActorInterface
from services.llm.domain import conversation_object

CANCELLING_HEARTBEAT_SECONDS: Final = 3.0
"""Heartbeat of a stream whose disconnect cancels the turn: a write is how a disconnect is noticed."""


class TurnEvents:
    def __init__(
        self, *, actors: Actors, log: EventLog, access: AccessCache, draining: Draining
    ) -> None:
        self._actors = actors
        self._log = log
        self._access = access
        self._draining = draining

    async def list_events(
        self, request: ListEventsRequest, caller: CallerIdentity
    ) -> ListEventsResponse:
        """List the events after a seq, without waiting.

        Raises:
            RpcError: NOT_FOUND, OUT_OF_RANGE.
        """
        await self._require_turn(turn_ref(request, caller))
        closed = await self.is_over(request.turn_id, request.after)
        return _response(
            await self._log.read(request.turn_id, request.after, request.limit), closed=closed
        )

    async def wait(self, request: ListEventsRequest, caller: CallerIdentity) -> ListEventsResponse:
        """Wait up to `waitSeconds` for the first events after a seq."""
        events: list[StoredEvent] = []
        try:
            async with asyncio.timeout(request.wait_seconds):
                async for batch in self._log.follow(request.turn_id, request.after):
                    if batch:
                        events = batch[: request.limit]
                        break
        except TimeoutError:
            pass
        await self.require_view(caller, request.conversation_id)
        return _response(events)

    async def stream(self, ref: TurnRef, after: int, rotate: float) -> AsyncIterator[bytes] | None:
        """Stream a turn's events; None if there are no more.

        Raises:
            RpcError: NOT_FOUND, OUT_OF_RANGE.
        """
        await self._require_turn(ref)
        if await self.is_over(ref.turn_id, after):
            return None
        return self._follow(ref, after, rotate)

    def stream_begun(
        self, ref: TurnRef, after: int, rotate: float, *, cancels: bool
    ) -> AsyncIterator[bytes]:
        """Stream a turn that the caller has just begun, as an editor. `cancels`: a disconnect cancels the turn."""
        granted = AccessCheck(ref.user_id, EDITOR, conversation_object(ref.conversation_id))
        heartbeat = CANCELLING_HEARTBEAT_SECONDS if cancels else HEARTBEAT_SECONDS
        return self._follow(ref, after, rotate, granted, heartbeat)

    async def require_view(self, caller: CallerIdentity, conversation_id: str) -> None:
        """Check again after a long wait, during which access may have been revoked."""
        if not await self._access.allows(_view_check(caller.user_id, conversation_id)):
            raise not_found("conversation")

    async def is_over(self, turn_id: str, after: int) -> bool:
        """Whether `after` is the terminal event's seq.

        Raises:
            RpcError: NOT_FOUND if the stream was deleted; OUT_OF_RANGE if events after `after` were deleted, or `after`
                is beyond the last event.
        """
        head = await self._log.head(turn_id)
        if head is None:
            raise not_found("stream of the turn")
        if after > head.last_seq:
            raise RpcError(ErrorCode.OUT_OF_RANGE, "after: no event has this seq.")
        if after + 1 < head.first_seq:
            raise RpcError(
                ErrorCode.OUT_OF_RANGE,
                f"after: events before {head.first_seq} are no longer kept.",
            )
        return head.closed_at is not None and after == head.last_seq

    def _follow(
        self,
        ref: TurnRef,
        after: int,
        rotate: float,
        granted: AccessCheck | None = None,
        heartbeat: float = HEARTBEAT_SECONDS,
    ) -> AsyncIterator[bytes]:
        check = _view_check(ref.user_id, ref.conversation_id)
        return follow_as_sse(
            self._log,
            ref.turn_id,
            after,
            is_terminal=_is_terminal,
            draining=self._draining,
            watch=partial(self._access.watch, check, granted=granted),
            max_seconds=rotate,
            heartbeat=heartbeat,
        )

    async def _require_turn(self, ref: TurnRef) -> None:
        """Raise NOT_FOUND unless the turn belongs to the conversation."""
        conversation = self._actors.get(ConversationActorInterface, ref.conversation_id)
        await conversation.get_turn(ref)


def turn_ref(
    request: GetTurnRequest | CancelTurnRequest | ListEventsRequest | StreamEventsRequest,
    caller: CallerIdentity,
) -> TurnRef:
    return TurnRef(
        user_id=caller.user_id,
        conversation_id=request.conversation_id,
        turn_id=request.turn_id,
    )


def _view_check(user_id: str, conversation_id: str) -> AccessCheck:
    return AccessCheck(user_id, VIEWER, conversation_object(conversation_id))


def _is_terminal(kind: str) -> bool:
    return EventType(kind).is_terminal


def _response(events: list[StoredEvent], *, closed: bool = False) -> ListEventsResponse:
    shown = [Event.model_validate_json(to_json(event)) for event in events]
    return ListEventsResponse(
        events=shown, closed=_is_terminal(events[-1].type) if events else closed
    )
