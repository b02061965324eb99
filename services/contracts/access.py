"""Client of auth's authorization, audit and key-charging RPCs."""

import uuid
from collections.abc import Sequence

from typing_extensions import override

from services.contracts.audit import AUDIT_SERVICE, AuditAction, RecordAuditEventRequest
from services.contracts.authorization import (
    AUTHORIZATION_SERVICE,
    MAX_WRITES,
    OWNER,
    CheckRequest,
    CheckResponse,
    ForgetObjectRequest,
    ListAccessChangesRequest,
    ListAccessChangesResponse,
    RelationTuple,
    WriteTuplesRequest,
)
from services.contracts.keys import API_KEY_SERVICE, ChargeApiKeyRequest
from services.kit.access.authorization import RecordedDenials
from services.kit.access.cache import AccessChange, AccessChanges, AccessCheck
from services.kit.access.identity import CallerIdentity
from services.kit.contract import Empty
from services.kit.dapr.client import RpcClient
from services.kit.errors import ErrorCode, RpcError
from services.kit.group_commit import GroupCommit


class Access(RecordedDenials):
    """`AccessSource` and `Denials` of every app but auth itself."""

    def __init__(self, client: RpcClient) -> None:
        super().__init__()
        self._client = client
        self._writes = GroupCommit(
            self._write,
            is_refusal=_is_refusal,
            key_of=lambda fact: fact.object,
            size_of=lambda fact: len(fact.object),
            in_flight=1,
            most=MAX_WRITES,
        )

    async def check(self, check: AccessCheck) -> bool:
        """By the tuples as they are. UNAVAILABLE where auth or OpenFGA is away."""
        request = CheckRequest(
            subject=f"user:{check.user_id}",
            relation=check.relation,
            object=check.object,
            fresh=True,
        )
        answer = await self._client.call(AUTHORIZATION_SERVICE, "Check", request, CheckResponse)
        return answer.allowed

    async def changes(self, after: int | None) -> AccessChanges:
        """What auth's feed has after a position. UNAVAILABLE where auth or its database is away."""
        answer = await self._client.call(
            AUTHORIZATION_SERVICE,
            "ListAccessChanges",
            ListAccessChangesRequest(after=after),
            ListAccessChangesResponse,
        )
        changes = [AccessChange(change.user_id, change.object) for change in answer.changes]
        return AccessChanges(answer.position, changes)

    async def own(self, user_id: str, target: str) -> None:
        """Make a user the owner of an object; repeatable. Others' writes of the same moment share the request."""
        fact = RelationTuple(subject=f"user:{user_id}", relation=OWNER, object=target)
        await self._writes.write([fact])

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

    async def _write(self, facts: Sequence[RelationTuple]) -> None:
        request = WriteTuplesRequest(writes=list(facts))
        await self._client.call(AUTHORIZATION_SERVICE, "WriteTuples", request, Empty)


def _is_refusal(error: Exception) -> bool:
    return isinstance(error, RpcError) and error.code is ErrorCode.INVALID_ARGUMENT
