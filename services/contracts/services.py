"""Every RPC service of the platform."""

from typing import Final

from services.contracts.conversations import CONVERSATION_SERVICE
from services.contracts.tokens import TOKEN_SERVICE
from services.contracts.workflows import WORKFLOW_SERVICE
from services.kit.contract import RpcService

SERVICES: Final[tuple[RpcService, ...]] = (CONVERSATION_SERVICE, TOKEN_SERVICE, WORKFLOW_SERVICE)
