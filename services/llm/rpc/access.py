"""Authorization types for route signatures."""

from typing import Annotated

from fastapi import Depends, Request
from typing_extensions import override

from services.contracts.auth.authorization import EDITOR, OWNER, VIEWER
from services.contracts.llm.conversations import DeleteConversationRequest
from services.kit.access.authorization import Caller, Permitted, SignedIn, access_control
from services.kit.access.identity import CallerIdentity
from services.kit.http.dependencies import get_dependency
from services.kit.http.rpc import message_of
from services.llm.domain import CONVERSATION_TYPE, conversation_object
from services.llm.service import ConversationService

__all__ = ["Caller", "CanDelete", "CanEdit", "CanView"]


def _require(relation: str) -> Permitted:
    return Permitted(relation, "conversation_id", kind=CONVERSATION_TYPE, visible_to=VIEWER)


class _RequireDelete(SignedIn):
    """The owner, or the former owner of a deleted conversation, which has no tuples left: deletion is repeatable."""

    @override
    async def __call__(self, request: Request) -> CallerIdentity:
        caller = await super().__call__(request)
        message = await message_of(request)
        assert isinstance(message, DeleteConversationRequest)
        conversations = get_dependency(request.app, ConversationService)
        if not await conversations.was_deleted_for(message.conversation_id, caller.user_id):
            target = conversation_object(message.conversation_id)
            await access_control(request).require(caller, OWNER, target, visible_to=VIEWER)
        return caller


CanView = Annotated[CallerIdentity, Depends(_require(VIEWER))]
CanEdit = Annotated[CallerIdentity, Depends(_require(EDITOR))]
CanDelete = Annotated[CallerIdentity, Depends(_RequireDelete())]
