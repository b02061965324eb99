"""How an app asks who may, and says what came to be: the one client of auth's services for apps."""

import uuid

from typing_extensions import override

from services.contracts.audit import AUDIT_SERVICE, AuditAction, RecordAuditEventRequest
from services.contracts.authorization import (
    AUTHORIZATION_SERVICE,
    OWNER,
    CheckRequest,
    CheckResponse,
    ForgetObjectRequest,
    RelationTuple,
    WriteTuplesRequest,
)
from services.contracts.keys import API_KEY_SERVICE, ChargeApiKeyRequest
from services.kit.authorization import Question, RecordedDenials
from services.kit.contract import Empty
from services.kit.identity import CallerIdentity
from services.kit.rpc_client import RpcClient


class Access(RecordedDenials):
    """`Judge` and `Denials` of every app but auth itself."""

    def __init__(self, client: RpcClient) -> None:
        super().__init__()
        self._client = client

    async def judge(self, question: Question) -> bool:
        """By the facts as they are. UNAVAILABLE where nobody can tell."""
        request = CheckRequest(
            subject=f"user:{question.user_id}",
            relation=question.relation,
            object=question.object,
            fresh=True,
        )
        answer = await self._client.call(AUTHORIZATION_SERVICE, "Check", request, CheckResponse)
        return answer.allowed

    async def own(self, user_id: str, target: str) -> None:
        """Make a user the owner of an object; repeatable."""
        writes = [RelationTuple(subject=f"user:{user_id}", relation=OWNER, object=target)]
        await self._client.call(
            AUTHORIZATION_SERVICE, "WriteTuples", WriteTuplesRequest(writes=writes), Empty
        )

    async def forget(self, target: str) -> None:
        """Remove every fact about an object that is no more; repeatable."""
        await self._client.call(
            AUTHORIZATION_SERVICE, "ForgetObject", ForgetObjectRequest(object=target), Empty
        )

    async def charge(self, key_id: str, reference: str, amount: float) -> None:
        """Book a cost on an API key, once per reference."""
        request = ChargeApiKeyRequest(key_id=key_id, reference=reference, amount=amount)
        await self._client.call(API_KEY_SERVICE, "ChargeApiKey", request, Empty)

    @override
    async def record(self, caller: CallerIdentity, relation: str, target: str) -> None:
        """Tell auth of a denial."""
        request = RecordAuditEventRequest(
            reference=uuid.uuid4().hex,
            action=AuditAction.ACCESS_DENIED,
            actor=caller.user_id,
            object=target[:200],
            key_id=caller.key_id,
            details={"wanted": relation[:256]},
        )
        await self._client.call(AUDIT_SERVICE, "RecordAuditEvent", request, Empty)
