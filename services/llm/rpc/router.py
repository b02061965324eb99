"""The router of both route modules."""

from services.contracts.llm.conversations import CONVERSATION_SERVICE
from services.kit.http.rpc import RpcRouter

rpc = RpcRouter(CONVERSATION_SERVICE)
