"""Routes of turns and their events."""

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
from services.kit.errors import RpcError
from services.kit.http.dependencies import provided
from services.kit.http.idempotency import IdempotencyKey
from services.kit.http.overload import mark_waiting
from services.kit.http.rpc import CallKey, LastEventId
from services.kit.http.sse import StreamSeconds
from services.llm.rpc.access import CanEdit, CanView
from services.llm.rpc.router import rpc
from services.llm.turns import TurnEvents, TurnService, turn_ref

Deps = Annotated[TurnService, Depends(provided(TurnService))]
Events = Annotated[TurnEvents, Depends(provided(TurnEvents))]


@rpc.method
async def send_message(
    request: SendMessageRequest, caller: CanEdit, key: CallKey, deps: Deps
) -> SendMessageResponse:
    ref = await deps.begin(request, caller, key)
    mark_waiting()
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
    _require_key_to_resume(key, last)
    ref = await deps.begin(request, caller, key)
    if last and await events.is_over(ref.turn_id, last):
        return None
    cancels = request.on_disconnect is OnDisconnect.CANCEL
    stream = events.stream_begun(ref, last or 0, rotate, cancels=cancels)
    return _cancel_on_disconnect(stream, deps, ref) if cancels else stream


@rpc.method
async def get_turn(request: GetTurnRequest, caller: CanView, deps: Deps) -> Turn:
    return await deps.get(turn_ref(request, caller))


@rpc.method
async def cancel_turn(request: CancelTurnRequest, caller: CanEdit, deps: Deps) -> Turn:
    return await deps.cancel(turn_ref(request, caller))


@rpc.method
async def list_events(
    request: ListEventsRequest, caller: CanView, events: Events
) -> ListEventsResponse:
    page = await events.list_events(request, caller)
    if page.events or page.closed or not request.wait_seconds:
        return page
    mark_waiting()
    return await events.wait(request, caller)


@rpc.stream
async def stream_events(
    request: StreamEventsRequest,
    caller: CanView,
    last: LastEventId,
    rotate: StreamSeconds,
    events: Events,
) -> AsyncIterator[bytes] | None:
    after = request.after if last is None else last
    return await events.stream(turn_ref(request, caller), after, rotate)


def _require_key_to_resume(key: IdempotencyKey, last: int | None) -> None:
    if last is not None and not key.explicit:
        raise RpcError.invalid(
            "Idempotency-Key",
            "is required with Last-Event-ID; without it, a new turn would begin",
        )


async def _cancel_on_disconnect(
    events: AsyncIterator[bytes], turns: TurnService, ref: TurnRef
) -> AsyncIterator[bytes]:
    """Cancel the turn if the client disconnects before its end."""
    ended = False
    try:
        async for chunk in events:
            yield chunk
        ended = True
    finally:
        if not ended:
            await asyncio.shield(turns.cancel(ref))
