"""Methods on turns and their events."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from typing import Final

from services.contracts.authorization import EDITOR, VIEWER
from services.contracts.conversations import (
    CancelTurnRequest,
    GetTurnRequest,
    ListEventsRequest,
    ListEventsResponse,
    OnDisconnect,
    SendMessageRequest,
    SendMessageResponse,
    StreamEventsRequest,
    Turn,
    TurnStatus,
)
from services.contracts.events import Event, EventType
from services.contracts.turns import TurnRef
from services.kit.access.cache import AccessCheck
from services.kit.access.identity import CallerIdentity
from services.kit.errors import ErrorCode, RpcError, not_found
from services.kit.eventlog import StoredEvent
from services.kit.http.overload import begun
from services.kit.http.rpc import CallKey, LastEventId
from services.kit.http.sse import HEARTBEAT_SECONDS, StreamSeconds, follow_as_sse, to_json
from services.llm.domain import conversation_object
from services.llm.rpc.access import CanEdit, CanView
from services.llm.rpc.resources import Resources, With, rpc

SEND_TIMEOUT: Final = timedelta(seconds=130)

LEAVING_SECONDS: Final = 3.0
"""The heartbeat of a stream whose turn is cancelled when its reader leaves: so soon it is noticed while the model is silent."""


@rpc.method
async def send_message(
    request: SendMessageRequest, caller: CanEdit, key: CallKey, using: With
) -> SendMessageResponse:
    """Begin a turn and wait for its end; DEADLINE_EXCEEDED leaves the turn running."""
    ref = await using.turns.begin(request, caller, key)
    begun()
    if not await using.turns.ended_within(ref.turn_id, SEND_TIMEOUT):
        raise RpcError(
            ErrorCode.DEADLINE_EXCEEDED, f"{ref.turn_id} is still running; follow its events."
        )
    await _require_still(using, caller, request.conversation_id)
    answer = await using.conversation(request.conversation_id).get_turn(ref)
    if answer.turn.status is TurnStatus.FAILED and answer.turn.error:
        raise RpcError.from_status(answer.turn.error)
    return SendMessageResponse(turn=answer.turn, message=answer.message)


@rpc.stream
async def stream_message(
    request: SendMessageRequest,
    caller: CanEdit,
    key: CallKey,
    last: LastEventId,
    rotate: StreamSeconds,
    using: With,
) -> AsyncIterator[bytes] | None:
    """Begin a turn and follow its events; a repeat with the same key follows the same turn."""
    if last is not None and not key.explicit:
        raise RpcError.invalid(
            "Idempotency-Key",
            "is needed to go on after Last-Event-ID; without it a turn begins anew",
        )
    ref = await using.turns.begin(request, caller, key)
    if last and await _is_over(using, ref.turn_id, last):
        return None
    granted = AccessCheck(caller.user_id, EDITOR, conversation_object(request.conversation_id))
    cancels = request.on_disconnect is OnDisconnect.CANCEL
    heartbeat = LEAVING_SECONDS if cancels else HEARTBEAT_SECONDS
    events = _follow(using, caller, ref, last or 0, rotate, granted, heartbeat)
    return _cancel_on_disconnect(events, using, ref) if cancels else events


@rpc.method
async def get_turn(request: GetTurnRequest, caller: CanView, using: With) -> Turn:
    """Read a turn."""
    ref = _ref(caller, request.conversation_id, request.turn_id)
    return (await using.conversation(request.conversation_id).get_turn(ref)).turn


@rpc.method
async def cancel_turn(request: CancelTurnRequest, caller: CanEdit, using: With) -> Turn:
    """Ask a turn to stop, and wait a little for the receipt."""
    ref = _ref(caller, request.conversation_id, request.turn_id)
    return await using.turns.cancel(ref)


@rpc.method
async def list_events(
    request: ListEventsRequest, caller: CanView, using: With
) -> ListEventsResponse:
    """Events after a seq; waits for the first when there is none."""
    await _require_turn(using, caller, request.conversation_id, request.turn_id)
    closed = await _is_over(using, request.turn_id, request.after)
    events = await using.events.read(request.turn_id, request.after, request.limit)
    if not events and request.wait_seconds and not closed:
        begun()
        events = await _first_batch(using, request)
        await _require_still(using, caller, request.conversation_id)
    if events:
        closed = _is_terminal(events[-1].type)
    return ListEventsResponse(events=[_event(event) for event in events], closed=closed)


@rpc.stream
async def stream_events(
    request: StreamEventsRequest,
    caller: CanView,
    last: LastEventId,
    rotate: StreamSeconds,
    using: With,
) -> AsyncIterator[bytes] | None:
    """Replay after `Last-Event-ID`, else after `after`, then follow until the terminal event.

    None (204) where the reader has seen the terminal event already.
    """
    after = request.after if last is None else last
    await _require_turn(using, caller, request.conversation_id, request.turn_id)
    if await _is_over(using, request.turn_id, after):
        return None
    ref = _ref(caller, request.conversation_id, request.turn_id)
    return _follow(using, caller, ref, after, rotate)


def _follow(
    using: Resources,
    caller: CallerIdentity,
    ref: TurnRef,
    after: int,
    rotate: float,
    granted: AccessCheck | None = None,
    heartbeat: float = HEARTBEAT_SECONDS,
) -> AsyncIterator[bytes]:
    return follow_as_sse(
        using.events,
        ref.turn_id,
        after,
        is_terminal=_is_terminal,
        draining=using.draining,
        watch=partial(using.access.watch, _may_view(caller, ref.conversation_id), granted=granted),
        rotate=rotate,
        heartbeat=heartbeat,
    )


async def _require_still(using: Resources, caller: CallerIdentity, conversation_id: str) -> None:
    """After a long wait: what was allowed when the call came may have been taken away."""
    if not await using.access.allows(_may_view(caller, conversation_id)):
        raise not_found("conversation")


def _may_view(caller: CallerIdentity, conversation_id: str) -> AccessCheck:
    return AccessCheck(caller.user_id, VIEWER, conversation_object(conversation_id))


async def _cancel_on_disconnect(
    events: AsyncIterator[bytes], using: Resources, ref: TurnRef
) -> AsyncIterator[bytes]:
    """Cancel the turn when its reader leaves before the end."""
    ended = False
    try:
        async for chunk in events:
            yield chunk
        ended = True
    finally:
        if not ended:
            await asyncio.shield(using.turns.cancel(ref))


async def _first_batch(using: Resources, request: ListEventsRequest) -> list[StoredEvent]:
    try:
        async with asyncio.timeout(request.wait_seconds):
            async for batch in using.events.follow(request.turn_id, request.after):
                if batch:
                    return batch[: request.limit]
    except TimeoutError:
        pass
    return []


async def _is_over(using: Resources, turn_id: str, after: int) -> bool:
    """Whether nothing comes after `after` any more.

    Raises:
        RpcError: NOT_FOUND where the events are no longer kept; OUT_OF_RANGE where those after `after` are not, or
            where `after` is in the stream's future.
    """
    head = await using.events.head(turn_id)
    if head is None:
        raise not_found("stream of the turn")
    if after > head.last_seq:
        raise RpcError(ErrorCode.OUT_OF_RANGE, "after: no event has this seq yet.")
    if after + 1 < head.first_seq:
        raise RpcError(
            ErrorCode.OUT_OF_RANGE, f"after: events before {head.first_seq} are no longer kept."
        )
    return head.closed_at is not None and after == head.last_seq


async def _require_turn(
    using: Resources, caller: CallerIdentity, conversation_id: str, turn_id: str
) -> None:
    """NOT_FOUND where it is no turn of the conversation that the caller may see."""
    await using.conversation(conversation_id).get_turn(_ref(caller, conversation_id, turn_id))


def _is_terminal(kind: str) -> bool:
    return EventType(kind).is_terminal


def _event(event: StoredEvent) -> Event:
    return Event.model_validate_json(to_json(event))


def _ref(caller: CallerIdentity, conversation_id: str, turn_id: str) -> TurnRef:
    return TurnRef(user_id=caller.user_id, conversation_id=conversation_id, turn_id=turn_id)
