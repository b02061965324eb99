"""The routes of `ConversationService`: authorize, call, return."""

from services.llm.rpc import conversations, turns
from services.llm.rpc.router import rpc

__all__ = ["conversations", "rpc", "turns"]
