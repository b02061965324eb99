"""Who may call which method of a conversation, as types for the signatures of the routes."""

from typing import Annotated

from fastapi import Depends

from services.contracts.authorization import EDITOR, OWNER, VIEWER
from services.kit.authorization import Caller, Permitted
from services.kit.identity import CallerIdentity
from services.llm.domain import CONVERSATION

__all__ = ["Caller", "CanEdit", "CanOwn", "CanView"]


def _of_conversation(relation: str) -> Permitted:
    return Permitted(relation, "conversation_id", kind=CONVERSATION, seen_by=VIEWER)


CanView = Annotated[CallerIdentity, Depends(_of_conversation(VIEWER))]
CanEdit = Annotated[CallerIdentity, Depends(_of_conversation(EDITOR))]
CanOwn = Annotated[CallerIdentity, Depends(_of_conversation(OWNER))]
