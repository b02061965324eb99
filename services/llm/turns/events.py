"""Reading turns' events: pages, long polls and streams, for readers who may view the conversation."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Final

from services.contracts.auth.authorization import EDITOR, VIEWER
from services.contracts.events import Event, EventType
from services.contracts.llm.conversations import ListEventsRequest, ListEventsResponse
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

LEAVING_SECONDS: Final = 3.0
"""The heartbeat of a stream whose turn is cancelled when its reader leaves: so soon it is noticed while the model is silent."""


class TurnEvents:
    """What readers see of turns."""

    def __init__(
        self, *, actors: Actors, log: EventLog, access: AccessCache, draining: Draining
    ) -> None:
        self._actors = actors
        self._log = log
        self._access = access
        self._draining = draining

    async def page(self, request: ListEventsRequest, caller: CallerIdentity) -> ListEventsResponse:
        """The events after a seq, as far as there are any.

        Raises:
            RpcError: NOT_FOUND, OUT_OF_RANGE.
        """
        await self._require_turn(_ref(request, caller))
        closed = await self.is_over(request.turn_id, request.after)
        return _response(
            await self._log.read(request.turn_id, request.after, request.limit), closed=closed
        )

    async def wait(self, request: ListEventsRequest, caller: CallerIdentity) -> ListEventsResponse:
        """The first events after a seq, once there are any, or none after `waitSeconds`."""
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
        """Follow a turn of the conversation that the caller may view; None where nothing comes any more.

        Raises:
            RpcError: NOT_FOUND, OUT_OF_RANGE.
        """
        await self._require_turn(ref)
        if await self.is_over(ref.turn_id, after):
            return None
        return self._follow(ref, after, rotate)

    def stream_own(
        self, ref: TurnRef, after: int, rotate: float, *, cancels: bool
    ) -> AsyncIterator[bytes]:
        """Follow a turn that the caller, who may edit the conversation, has begun.

        `cancels`: somebody has to notice soon when the reader leaves.
        """
        granted = AccessCheck(ref.user_id, EDITOR, conversation_object(ref.conversation_id))
        heartbeat = LEAVING_SECONDS if cancels else HEARTBEAT_SECONDS
        return self._follow(ref, after, rotate, granted, heartbeat)

    async def require_view(self, caller: CallerIdentity, conversation_id: str) -> None:
        """After a long wait: what was allowed when the call came may have been taken away."""
        if not await self._access.allows(_may_view(caller.user_id, conversation_id)):
            raise not_found("conversation")

    async def is_over(self, turn_id: str, after: int) -> bool:
        """Whether nothing comes after `after` any more.

        Raises:
            RpcError: NOT_FOUND where the events are no longer kept; OUT_OF_RANGE where those after `after` are not, or
                where `after` is in the stream's future.
        """
        head = await self._log.head(turn_id)
        if head is None:
            raise not_found("stream of the turn")
        if after > head.last_seq:
            raise RpcError(ErrorCode.OUT_OF_RANGE, "after: no event has this seq yet.")
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
        check = _may_view(ref.user_id, ref.conversation_id)
        return follow_as_sse(
            self._log,
            ref.turn_id,
            after,
            is_terminal=_is_terminal,
            draining=self._draining,
            watch=partial(self._access.watch, check, granted=granted),
            rotate=rotate,
            heartbeat=heartbeat,
        )

    async def _require_turn(self, ref: TurnRef) -> None:
        """NOT_FOUND where it is no turn of that conversation."""
        conversation = self._actors.get(ConversationActorInterface, ref.conversation_id)
        await conversation.get_turn(ref)


def _ref(request: ListEventsRequest, caller: CallerIdentity) -> TurnRef:
    return TurnRef(
        user_id=caller.user_id,
        conversation_id=request.conversation_id,
        turn_id=request.turn_id,
    )


def _may_view(user_id: str, conversation_id: str) -> AccessCheck:
    return AccessCheck(user_id, VIEWER, conversation_object(conversation_id))


def _is_terminal(kind: str) -> bool:
    return EventType(kind).is_terminal


def _response(events: list[StoredEvent], *, closed: bool = False) -> ListEventsResponse:
    shown = [Event.model_validate_json(to_json(event)) for event in events]
    return ListEventsResponse(
        events=shown, closed=_is_terminal(events[-1].type) if events else closed
    )
