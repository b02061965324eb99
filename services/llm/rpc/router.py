"""The router that both files of routes bind to."""

from services.contracts.llm.conversations import CONVERSATION_SERVICE
from services.kit.http.rpc import RpcRouter

rpc = RpcRouter(CONVERSATION_SERVICE)
