"""Who may call which method of a conversation, as types for the signatures of the routes."""

from typing import Annotated

from fastapi import Depends, Request
from typing_extensions import override

from services.contracts.auth.authorization import EDITOR, OWNER, VIEWER
from services.contracts.llm.conversations import DeleteConversationRequest
from services.kit.access.authorization import Caller, Permitted, SignedIn, access_control
from services.kit.access.identity import CallerIdentity
from services.kit.http.dependencies import taken
from services.kit.http.rpc import message_of
from services.llm.domain import CONVERSATION, conversation_object
from services.llm.service import ConversationService

__all__ = ["Caller", "CanDelete", "CanEdit", "CanView"]


def _of_conversation(relation: str) -> Permitted:
    return Permitted(relation, "conversation_id", kind=CONVERSATION, seen_by=VIEWER)


class _MayDelete(SignedIn):
    """The owner; or whose it was before it was deleted, so that a deletion of unknown outcome can be repeated."""

    @override
    async def __call__(self, request: Request) -> CallerIdentity:
        """The caller. A deleted conversation has no tuples left, so its own state answers."""
        caller = await super().__call__(request)
        message = await message_of(request)
        assert isinstance(message, DeleteConversationRequest)
        conversations = taken(request.app, ConversationService)
        if not await conversations.was_deleted_for(message.conversation_id, caller.user_id):
            target = conversation_object(message.conversation_id)
            await access_control(request).require(caller, OWNER, target, seen_by=VIEWER)
        return caller


CanView = Annotated[CallerIdentity, Depends(_of_conversation(VIEWER))]
CanEdit = Annotated[CallerIdentity, Depends(_of_conversation(EDITOR))]
CanDelete = Annotated[CallerIdentity, Depends(_MayDelete())]
