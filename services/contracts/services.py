"""Every RPC service of the platform."""

from typing import Final

from services.contracts.accounts import ACCOUNT_SERVICE
from services.contracts.audit import AUDIT_SERVICE
from services.contracts.authorization import AUTHORIZATION_SERVICE
from services.contracts.conversations import CONVERSATION_SERVICE
from services.contracts.keys import API_KEY_SERVICE
from services.contracts.tokens import TOKEN_SERVICE
from services.contracts.workflows import WORKFLOW_SERVICE
from services.kit.contract import RpcService

SERVICES: Final[tuple[RpcService, ...]] = (
    CONVERSATION_SERVICE,
    API_KEY_SERVICE,
    TOKEN_SERVICE,
    AUTHORIZATION_SERVICE,
    AUDIT_SERVICE,
    ACCOUNT_SERVICE,
    WORKFLOW_SERVICE,
)
