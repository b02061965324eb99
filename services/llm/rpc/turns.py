"""Methods on turns and their events."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends

from services.contracts.llm.conversations import (
    CancelTurnRequest,
    GetTurnRequest,
    ListEventsRequest,
    ListEventsResponse,
    OnDisconnect,
    SendMessageRequest,
    SendMessageResponse,
    StreamEventsRequest,
)
from services.contracts.llm.turns import Turn, TurnRef
from services.kit.access.identity import CallerIdentity
from services.kit.errors import RpcError
from services.kit.http.dependencies import provided
from services.kit.http.idempotency import IdempotencyKey
from services.kit.http.overload import now_waiting
from services.kit.http.rpc import CallKey, LastEventId
from services.kit.http.sse import StreamSeconds
from services.llm.rpc.access import CanEdit, CanView
from services.llm.rpc.router import rpc
from services.llm.turns import TurnEvents, TurnService

Deps = Annotated[TurnService, Depends(provided(TurnService))]
Events = Annotated[TurnEvents, Depends(provided(TurnEvents))]


@rpc.method
async def send_message(
    request: SendMessageRequest, caller: CanEdit, key: CallKey, deps: Deps
) -> SendMessageResponse:
    """Begin a turn and wait for its end; DEADLINE_EXCEEDED leaves the turn running."""
    ref = await deps.begin(request, caller, key)
    now_waiting()
    return await deps.answer(ref, caller)


@rpc.stream
async def stream_message(
    request: SendMessageRequest,
    caller: CanEdit,
    key: CallKey,
    last: LastEventId,
    rotate: StreamSeconds,
    deps: Deps,
    events: Events,
) -> AsyncIterator[bytes] | None:
    """Begin a turn and follow its events; a repeat with the same key follows the same turn."""
    _require_key_to_resume(key, last)
    ref = await deps.begin(request, caller, key)
    if last and await events.is_over(ref.turn_id, last):
        return None
    cancels = request.on_disconnect is OnDisconnect.CANCEL
    stream = events.stream_own(ref, last or 0, rotate, cancels=cancels)
    return _cancel_on_disconnect(stream, deps, ref) if cancels else stream


@rpc.method
async def get_turn(request: GetTurnRequest, caller: CanView, deps: Deps) -> Turn:
    """Read a turn."""
    return await deps.get(_ref(request, caller))


@rpc.method
async def cancel_turn(request: CancelTurnRequest, caller: CanEdit, deps: Deps) -> Turn:
    """Ask a turn to stop, and wait a little for the receipt."""
    return await deps.cancel(_ref(request, caller))


@rpc.method
async def list_events(
    request: ListEventsRequest, caller: CanView, events: Events
) -> ListEventsResponse:
    """Events after a seq; waits for the first when there is none."""
    page = await events.page(request, caller)
    if page.events or page.closed or not request.wait_seconds:
        return page
    now_waiting()
    return await events.wait(request, caller)


@rpc.stream
async def stream_events(
    request: StreamEventsRequest,
    caller: CanView,
    last: LastEventId,
    rotate: StreamSeconds,
    events: Events,
) -> AsyncIterator[bytes] | None:
    """Replay after `Last-Event-ID`, else after `after`, then follow until the terminal event."""
    after = request.after if last is None else last
    return await events.stream(_ref(request, caller), after, rotate)


def _require_key_to_resume(key: IdempotencyKey, last: int | None) -> None:
    if last is not None and not key.explicit:
        raise RpcError.invalid(
            "Idempotency-Key",
            "is needed to go on after Last-Event-ID; without it a turn begins anew",
        )


async def _cancel_on_disconnect(
    events: AsyncIterator[bytes], turns: TurnService, ref: TurnRef
) -> AsyncIterator[bytes]:
    """Cancel the turn when its reader leaves before the end."""
    ended = False
    try:
        async for chunk in events:
            yield chunk
        ended = True
    finally:
        if not ended:
            await asyncio.shield(turns.cancel(ref))


def _ref(
    request: GetTurnRequest | CancelTurnRequest | StreamEventsRequest, caller: CallerIdentity
) -> TurnRef:
    return TurnRef(
        user_id=caller.user_id,
        conversation_id=request.conversation_id,
        turn_id=request.turn_id,
    )
