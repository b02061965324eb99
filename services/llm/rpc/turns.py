"""Methods on turns and their events."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Final

from services.contracts.authorization import VIEWER
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
from services.contracts.turns import TURN_STREAM, BeginTurnCommand, RunTurnInput, TurnRef
from services.kit.authorization import Question
from services.kit.errors import ErrorCode, RpcError, not_found
from services.kit.eventlog import StoredEvent
from services.kit.failpoints import failpoint
from services.kit.idempotency import IdempotencyKey
from services.kit.identity import CallerIdentity
from services.kit.overload import begun
from services.kit.rpc import CallKey, LastEventId
from services.kit.sse import follow_as_sse, to_json
from services.llm.domain import conversation_object, ending
from services.llm.rpc.access import CanEdit, CanView
from services.llm.rpc.resources import Resources, With, rpc

SEND_TIMEOUT: Final = timedelta(seconds=130)
RECEIPT_TIMEOUT: Final = timedelta(seconds=3)
"""How long CancelTurn waits for the receipt to be complete."""


@rpc.method
async def send_message(
    request: SendMessageRequest, caller: CanEdit, key: CallKey, using: With
) -> SendMessageResponse:
    """Begin a turn and wait for its end; DEADLINE_EXCEEDED leaves the turn running."""
    turn_id = await _begin(request, caller, key, using)
    begun()
    if not await _ended_within(using, turn_id, SEND_TIMEOUT):
        raise RpcError(
            ErrorCode.DEADLINE_EXCEEDED, f"{turn_id} is still running; follow its events."
        )
    await _require_still(using, caller, request.conversation_id)
    answer = await using.conversation(request.conversation_id).get_turn(
        _ref(caller, request.conversation_id, turn_id)
    )
    if answer.turn.status is TurnStatus.FAILED and answer.turn.error:
        raise RpcError.from_status(answer.turn.error)
    return SendMessageResponse(turn=answer.turn, message=answer.message)


@rpc.stream
async def stream_message(
    request: SendMessageRequest,
    caller: CanEdit,
    key: CallKey,
    last: LastEventId,
    using: With,
) -> AsyncIterator[bytes]:
    """Begin a turn and follow its events; a repeat with the same key follows the same turn."""
    turn_id = await _begin(request, caller, key, using)
    events = _follow(using, caller, request.conversation_id, turn_id, last or 0)
    if request.on_disconnect is OnDisconnect.CANCEL:
        return _cancel_on_disconnect(events, using, _ref(caller, request.conversation_id, turn_id))
    return events


@rpc.method
async def get_turn(request: GetTurnRequest, caller: CanView, using: With) -> Turn:
    """Read a turn."""
    ref = _ref(caller, request.conversation_id, request.turn_id)
    return (await using.conversation(request.conversation_id).get_turn(ref)).turn


@rpc.method
async def cancel_turn(request: CancelTurnRequest, caller: CanEdit, using: With) -> Turn:
    """Ask a turn to stop, and wait a little for the receipt."""
    ref = _ref(caller, request.conversation_id, request.turn_id)
    return await _cancel(using, ref)


@rpc.method
async def list_events(
    request: ListEventsRequest, caller: CanView, using: With
) -> ListEventsResponse:
    """Events after a seq; waits for the first when there is none."""
    await _require_stream(using, caller, request.conversation_id, request.turn_id, request.after)
    events = await using.events.read(request.turn_id, request.after, request.limit)
    closed = await _closed(using, request.turn_id, events, request)
    if not events and request.wait_seconds and not closed:
        begun()
        events = await _first_batch(using, request)
        await _require_still(using, caller, request.conversation_id)
        closed = await _closed(using, request.turn_id, events, request)
    return ListEventsResponse(events=[_event(event) for event in events], closed=closed)


@rpc.stream
async def stream_events(
    request: StreamEventsRequest, caller: CanView, last: LastEventId, using: With
) -> AsyncIterator[bytes]:
    """Replay after `Last-Event-ID`, else after `after`, then follow until the terminal event."""
    after = request.after if last is None else last
    await _require_stream(using, caller, request.conversation_id, request.turn_id, after)
    return _follow(using, caller, request.conversation_id, request.turn_id, after)


async def _begin(
    request: SendMessageRequest,
    caller: CallerIdentity,
    key: IdempotencyKey,
    using: Resources,
) -> str:
    """Admit a turn, durably, begin it here, and start the workflow that sees it through. Returns its id.

    The stream is opened first: whatever dies after that, the sweep finds the turn by it.
    """
    if request.model:
        using.model.check(request.model)
    turn_id = f"turn_{key.derive('turn')}"
    ref = RunTurnInput(
        user_id=caller.user_id, conversation_id=request.conversation_id, turn_id=turn_id
    )
    await failpoint("turn.before_begin")
    opened = await using.events.open(
        turn_id, kind=TURN_STREAM, owner=caller.user_id, subject=request.conversation_id
    )
    try:
        begun = await using.conversation(request.conversation_id).begin_turn(
            BeginTurnCommand(
                turn_id=turn_id,
                key_id=caller.key_id,
                repeatable=key.explicit,
                model=request.model or using.default_model,
                request=request,
            )
        )
    except RpcError as error:
        if opened and error.code is not ErrorCode.UNAVAILABLE:  # refused: there is no such turn
            await using.events.discard_unused(turn_id)
        raise
    await failpoint("turn.after_begin")
    if begun.context is not None:
        using.work.begin_at_once(ref, begun.context)
    elif begun.turn.status is TurnStatus.RUNNING:
        await using.workflows.start(ref)
    return turn_id


def _follow(
    using: Resources, caller: CallerIdentity, conversation_id: str, turn_id: str, after: int
) -> AsyncIterator[bytes]:
    async def permitted() -> bool:
        return await using.decisions.still_allows(_may_view(caller, conversation_id))

    return follow_as_sse(
        using.events,
        turn_id,
        after,
        is_terminal=_is_terminal,
        draining=using.is_draining,
        permitted=permitted,
    )


async def _require_still(using: Resources, caller: CallerIdentity, conversation_id: str) -> None:
    """After a long wait: what was allowed when the call came may have been taken away."""
    if not await using.decisions.allows(_may_view(caller, conversation_id)):
        raise not_found("conversation")


def _may_view(caller: CallerIdentity, conversation_id: str) -> Question:
    return Question(caller.user_id, VIEWER, conversation_object(conversation_id))


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
            await asyncio.shield(_cancel(using, ref))


async def _cancel(using: Resources, ref: TurnRef) -> Turn:
    conversation = using.conversation(ref.conversation_id)
    turn = await conversation.cancel_turn(ref)
    await failpoint("turn.after_cancel_recorded")
    if turn.status.is_terminal:
        await using.events.close_stream(ref.turn_id, *ending(turn))
        return turn
    await using.events.request_cancel(ref.turn_id)
    await using.work.end_if_free(RunTurnInput(**ref.model_dump()))
    await _ended_within(using, ref.turn_id, RECEIPT_TIMEOUT)
    return (await conversation.get_turn(ref)).turn


async def _ended_within(using: Resources, turn_id: str, limit: timedelta) -> bool:
    try:
        async with asyncio.timeout(limit.total_seconds()):
            async for batch in using.events.follow(turn_id):
                if batch and _is_terminal(batch[-1].type):
                    return True
    except TimeoutError:
        pass
    except RpcError as error:
        if error.code is not ErrorCode.OUT_OF_RANGE:
            raise
        return True  # so long ago that only its end is kept
    return False


async def _first_batch(using: Resources, request: ListEventsRequest) -> list[StoredEvent]:
    try:
        async with asyncio.timeout(request.wait_seconds):
            async for batch in using.events.follow(request.turn_id, request.after):
                if batch:
                    return batch[: request.limit]
    except TimeoutError:
        pass
    return []


async def _require_stream(
    using: Resources, caller: CallerIdentity, conversation_id: str, turn_id: str, after: int
) -> None:
    """The caller's turn has a stream, and `after` is not in its future.

    Raises:
        RpcError: NOT_FOUND; OUT_OF_RANGE.
    """
    await using.conversation(conversation_id).get_turn(_ref(caller, conversation_id, turn_id))
    head = await using.events.head(turn_id)
    if after > (head.last_seq if head else 0):
        raise RpcError(ErrorCode.OUT_OF_RANGE, "after: no event has this seq yet.")


async def _closed(
    using: Resources, turn_id: str, events: list[StoredEvent], request: ListEventsRequest
) -> bool:
    if events:
        return _is_terminal(events[-1].type)
    head = await using.events.head(turn_id)
    return head is None or (head.closed_at is not None and head.last_seq <= request.after)


def _is_terminal(kind: str) -> bool:
    return EventType(kind).is_terminal


def _event(event: StoredEvent) -> Event:
    return Event.model_validate_json(to_json(event))


def _ref(caller: CallerIdentity, conversation_id: str, turn_id: str) -> TurnRef:
    return TurnRef(user_id=caller.user_id, conversation_id=conversation_id, turn_id=turn_id)
