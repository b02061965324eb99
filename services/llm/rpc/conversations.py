"""Routes of conversations and messages."""

from typing import Annotated

from fastapi import Depends

from services.contracts.llm.conversations import (
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
from services.kit.contract import Empty
from services.kit.http.dependencies import provided
from services.kit.http.rpc import CallKey
from services.llm.rpc.access import Caller, CanDelete, CanEdit, CanView
from services.llm.rpc.router import rpc
from services.llm.service import ConversationService

Deps = Annotated[ConversationService, Depends(provided(ConversationService))]


@rpc.method
async def create_conversation(
    request: CreateConversationRequest, caller: Caller, key: CallKey, deps: Deps
) -> Conversation:
    return await deps.create(request, caller, key)


@rpc.method
async def get_conversation(request: GetConversationRequest, _: CanView, deps: Deps) -> Conversation:
    return await deps.get(request)


@rpc.method
async def list_conversations(
    request: ListConversationsRequest, caller: Caller, deps: Deps
) -> ListConversationsResponse:
    return await deps.list_conversations(request, caller)


@rpc.method
async def update_conversation(
    request: UpdateConversationRequest, _: CanEdit, deps: Deps
) -> Conversation:
    return await deps.update(request)


@rpc.method
async def delete_conversation(
    request: DeleteConversationRequest, caller: CanDelete, deps: Deps
) -> Empty:
    await deps.delete(request, caller)
    return Empty()


@rpc.method
async def list_messages(
    request: ListMessagesRequest, _: CanView, deps: Deps
) -> ListMessagesResponse:
    return await deps.list_messages(request)


@rpc.method
async def append_message(
    request: AppendMessageRequest, _: CanEdit, key: CallKey, deps: Deps
) -> AppendMessageResponse:
    return await deps.append_message(request, key)
