"""`yocaso.llm.v1.ConversationService`: authorize, call, return."""

from services.llm.rpc import conversations, turns
from services.llm.rpc.resources import Resources, provide, rpc

__all__ = ["Resources", "conversations", "provide", "rpc", "turns"]
