"""Conversation actors and their interfaces."""

from services.llm.actors.conversation import ConversationActor
from services.llm.actors.interfaces import (
    ConversationActorInterface,
    ConversationManagerActorInterface,
)
from services.llm.actors.manager import ConversationManagerActor

__all__ = [
    "ConversationActor",
    "ConversationActorInterface",
    "ConversationManagerActor",
    "ConversationManagerActorInterface",
]
