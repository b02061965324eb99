"""Methods on conversations and messages."""

from services.contracts.conversations import (
    AppendMessageRequest,
    AppendMessageResponse,
    Conversation,
    CreateConversationRequest,
    DeleteConversationRequest,
    GetConversationRequest,
    ListConversationsRequest,
    ListConversationsResponse,
    ListMessagesRequest,
    ListMessagesResponse,
    UpdateConversationRequest,
)
from services.contracts.turns import (
    AppendMessageCommand,
    CreateConversationCommand,
    DeleteConversationCommand,
    IndexEntry,
    PageOfIdsRequest,
)
from services.kit.contract import Empty
from services.kit.errors import ErrorCode, RpcError
from services.kit.failpoints import failpoint
from services.kit.http.cursors import decode_cursor, encode_cursor
from services.kit.http.rpc import CallKey
from services.llm.domain import conversation_object
from services.llm.rpc.access import Caller, CanDelete, CanEdit, CanView
from services.llm.rpc.resources import Resources, With, rpc


@rpc.method
async def create_conversation(
    request: CreateConversationRequest, caller: Caller, key: CallKey, using: With
) -> Conversation:
    """Create it in the caller's index, give the caller access; each may be repeated.

    An old key of a conversation that was deleted since is NOT_FOUND.
    """
    if request.model:
        using.model.check(request.model)
    conversation_id = f"conv_{key.derive('conversation')}"
    command = CreateConversationCommand(
        user_id=caller.user_id, conversation_id=conversation_id, request=request
    )
    manager = using.manager(caller.user_id)
    begun = await manager.begin_create(command)
    entry = IndexEntry(position=begun.position, conversation_id=conversation_id)
    conversation = begun.conversation
    if conversation is None:
        placed = command.model_copy(update={"position": entry.position})
        try:
            conversation = await using.conversation(conversation_id).create(placed)
        except RpcError as error:
            if error.code is ErrorCode.NOT_FOUND:  # its purge removes the entry
                await manager.finish_create(entry)
            raise
    await failpoint("conversation.after_create")
    await using.ownership.own(caller.user_id, conversation_object(conversation_id))
    await manager.finish_create(entry)
    return conversation


@rpc.method
async def get_conversation(
    request: GetConversationRequest, _: CanView, using: With
) -> Conversation:
    """Read it."""
    return await using.conversation(request.conversation_id).read()


@rpc.method
async def list_conversations(
    request: ListConversationsRequest, caller: Caller, using: With
) -> ListConversationsResponse:
    """A page of the caller's index, with what each conversation is now."""
    scope = f"conversations/{caller.user_id}/{request.order}"
    after = decode_cursor(scope, request.cursor) if request.cursor else 0
    page = await using.manager(caller.user_id).list_ids(
        PageOfIdsRequest(after=after, limit=request.limit, order=request.order)
    )
    heads = await using.read_conversations([entry.conversation_id for entry in page.entries])
    views = [
        head.view() for head in heads if head and not head.deleted and head.owner == caller.user_id
    ]
    cursor = encode_cursor(scope, page.entries[-1].position) if page.more else None
    return ListConversationsResponse(conversations=views, next_cursor=cursor)


@rpc.method
async def update_conversation(
    request: UpdateConversationRequest, _: CanEdit, using: With
) -> Conversation:
    """Change it."""
    if request.model:
        using.model.check(request.model)
    return await using.conversation(request.conversation_id).update(request)


@rpc.method
async def delete_conversation(
    request: DeleteConversationRequest, caller: CanDelete, using: With
) -> Empty:
    """Delete it, repeatable; its running turn is stopped, what is left behind is removed in the background."""
    command = DeleteConversationCommand(user_id=caller.user_id)
    deleted = await using.conversation(request.conversation_id).delete(command)
    await _stop(using, deleted.turn_ids)
    return Empty()


@rpc.method
async def list_messages(
    request: ListMessagesRequest, _: CanView, using: With
) -> ListMessagesResponse:
    """A page of messages."""
    return await using.conversation(request.conversation_id).list_messages(request)


@rpc.method
async def append_message(
    request: AppendMessageRequest, _: CanEdit, key: CallKey, using: With
) -> AppendMessageResponse:
    """Store a message without asking the model."""
    message_id = f"msg_{key.derive('message')}"
    command = AppendMessageCommand(message_id=message_id, repeatable=key.explicit, request=request)
    message = await using.conversation(request.conversation_id).append_message(command)
    return AppendMessageResponse(message=message)


async def _stop(using: Resources, turn_ids: list[str]) -> None:
    for turn_id in turn_ids:
        await using.events.request_cancel(turn_id)
