"""Who may call which method of a conversation, as types for the signatures of the routes."""

from typing import Annotated

from fastapi import Depends, Request
from typing_extensions import override

from services.contracts.authorization import EDITOR, OWNER, VIEWER
from services.contracts.conversations import DeleteConversationRequest
from services.kit.access.authorization import Caller, Permitted, SignedIn, guard_of, require
from services.kit.access.identity import CallerIdentity
from services.kit.http.rpc import message_of
from services.llm.domain import CONVERSATION, conversation_object
from services.llm.rpc.resources import resources_of

__all__ = ["Caller", "CanDelete", "CanEdit", "CanView"]


def _of_conversation(relation: str) -> Permitted:
    return Permitted(relation, "conversation_id", kind=CONVERSATION, seen_by=VIEWER)


class _MayDelete(SignedIn):
    """An owner; or whose it was before it was deleted, so that a deletion of unknown outcome can be repeated."""

    @override
    async def __call__(self, request: Request) -> CallerIdentity:
        """The caller. A deleted conversation has no tuples left: its head answers, without waking its actor."""
        caller = await super().__call__(request)
        message = await message_of(request)
        assert isinstance(message, DeleteConversationRequest)
        [head] = await (await resources_of(request)).read_conversations([message.conversation_id])
        if head is None or not head.was_deleted_for(caller.user_id):
            target = conversation_object(message.conversation_id)
            await require(guard_of(request), caller, OWNER, target, seen_by=VIEWER)
        return caller


CanView = Annotated[CallerIdentity, Depends(_of_conversation(VIEWER))]
CanEdit = Annotated[CallerIdentity, Depends(_of_conversation(EDITOR))]
CanDelete = Annotated[CallerIdentity, Depends(_MayDelete())]
