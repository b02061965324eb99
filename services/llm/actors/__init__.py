"""The actors of conversations."""

from services.llm.actors.conversation import ConversationActor, read_conversations
from services.llm.actors.manager import ConversationManagerActor

__all__ = ["ConversationActor", "ConversationManagerActor", "read_conversations"]
