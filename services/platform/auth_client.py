"""Client of auth's authorization, audit and key-charging RPCs."""

import uuid
from collections.abc import Sequence

from typing_extensions import override

from services.contracts.auth.audit import RECORD_AUDIT_EVENT, AuditAction, RecordAuditEventRequest
from services.contracts.auth.authorization import (
    CHECK,
    FORGET_OBJECT,
    LIST_ACCESS_CHANGES,
    MAX_WRITES,
    OWNER,
    WRITE_TUPLES,
    CheckRequest,
    ForgetObjectRequest,
    ListAccessChangesRequest,
    RelationTuple,
    WriteTuplesRequest,
)
from services.contracts.auth.keys import CHARGE_API_KEY, ChargeApiKeyRequest
from services.kit.access.authorization import DenialAudit
from services.kit.access.cache import AccessChange, AccessChanges, AccessCheck
from services.kit.access.identity import CallerIdentity
from services.kit.dapr.client import RpcClient
from services.kit.errors import ErrorCode, RpcError
from services.kit.group_commit import GroupCommit


class AuthClient(DenialAudit):
    """`AccessSource` and `DenialAudit` of every app except auth."""

    def __init__(self, client: RpcClient) -> None:
        super().__init__()
        self._client = client
        self._writes = GroupCommit(
            self._write,
            is_refusal=_is_refusal,
            key_of=lambda written: written.object,
            size_of=lambda written: len(written.object),
            max_in_flight=1,
            max_operations=MAX_WRITES,
        )

    async def check(self, check: AccessCheck) -> bool:
        """Check without OpenFGA's cache. UNAVAILABLE when auth or OpenFGA is."""
        request = CheckRequest(
            subject=f"user:{check.user_id}",
            relation=check.relation,
            object=check.object,
            fresh=True,
        )
        return (await self._client.call(CHECK, request)).allowed

    async def changes(self, after: int | None) -> AccessChanges:
        """Changes of auth's feed after a position. UNAVAILABLE when auth or its database is."""
        request = ListAccessChangesRequest(after=after)
        answer = await self._client.call(LIST_ACCESS_CHANGES, request)
        changes = [AccessChange(change.user_id, change.object) for change in answer.changes]
        return AccessChanges(answer.position, changes)

    async def own(self, user_id: str, target: str) -> None:
        """Make a user the owner of an object; idempotent. Concurrent calls share one request."""
        ownership = RelationTuple(subject=f"user:{user_id}", relation=OWNER, object=target)
        await self._writes.write([ownership])

    async def forget(self, target: str) -> None:
        """Remove every tuple of a deleted object; idempotent."""
        await self._client.call(FORGET_OBJECT, ForgetObjectRequest(object=target))

    async def charge(self, key_id: str, reference: str, amount: float) -> None:
        """Charge a cost to an API key, once per reference."""
        request = ChargeApiKeyRequest(key_id=key_id, reference=reference, amount=amount)
        await self._client.call(CHARGE_API_KEY, request)

    @override
    async def record(self, caller: CallerIdentity, relation: str, target: str) -> None:
        """Send a denial to auth's audit log."""
        request = RecordAuditEventRequest(
            reference=uuid.uuid4().hex,
            action=AuditAction.ACCESS_DENIED,
            actor=caller.user_id,
            object=target[:200],
            key_id=caller.key_id,
            details={"wanted": relation[:256], **caller.audit_details},
        )
        await self._client.call(RECORD_AUDIT_EVENT, request)

    async def _write(self, tuples: Sequence[RelationTuple]) -> None:
        await self._client.call(WRITE_TUPLES, WriteTuplesRequest(writes=list(tuples)))


def _is_refusal(error: Exception) -> bool:
    return isinstance(error, RpcError) and error.code is ErrorCode.INVALID_ARGUMENT
