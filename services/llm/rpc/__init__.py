"""Routes of `ConversationService`."""

from services.llm.rpc import conversations, turns
from services.llm.rpc.router import rpc

__all__ = ["conversations", "rpc", "turns"]
