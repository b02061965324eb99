"""How an app asks who may, and says what came to be: the one client of auth's services for apps."""

import asyncio
import uuid
from collections.abc import Sequence
from typing import Final

import structlog

from services.contracts.audit import AUDIT_SERVICE, AuditAction, RecordAuditEventRequest
from services.contracts.authorization import (
    AUTHORIZATION_SERVICE,
    OWNER,
    BatchCheckRequest,
    BatchCheckResponse,
    ForgetObjectRequest,
    RelationTuple,
    WriteTuplesRequest,
)
from services.contracts.keys import API_KEY_SERVICE, ChargeApiKeyRequest
from services.kit.authorization import Question
from services.kit.contract import Empty
from services.kit.errors import RpcError
from services.kit.identity import CallerIdentity
from services.kit.rpc_client import RpcClient

MAX_WAITING: Final = 1000
"""Denials that wait to be recorded; a flood of more is counted in the log only."""

log = structlog.get_logger()


class Access:
    """`Judge` and `Denials` of every app but auth itself."""

    def __init__(self, client: RpcClient) -> None:
        self._client = client
        self._recording: set[asyncio.Task[None]] = set()

    async def judge(self, questions: Sequence[Question], *, fresh: bool) -> list[bool]:
        """Answers in order. UNAVAILABLE where nobody can tell."""
        checks = [_tuple(q.user_id, q.relation, q.object) for q in questions]
        answer = await self._client.call(
            AUTHORIZATION_SERVICE,
            "BatchCheck",
            BatchCheckRequest(checks=checks, fresh=fresh),
            BatchCheckResponse,
        )
        return answer.allowed

    async def own(self, user_id: str, target: str) -> None:
        """Make a user the owner of an object; repeatable."""
        writes = [_tuple(user_id, OWNER, target)]
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

    async def denied(self, caller: CallerIdentity, relation: str, target: str) -> None:
        """Record a denial beside the call, not before its answer."""
        if len(self._recording) >= MAX_WAITING:
            log.warning("access.denial_not_recorded")
            return
        task = asyncio.create_task(self._record(caller, relation, target))
        self._recording.add(task)
        task.add_done_callback(self._recording.discard)

    async def close(self) -> None:
        """Finish what is being recorded."""
        await asyncio.gather(*self._recording, return_exceptions=True)

    async def _record(self, caller: CallerIdentity, relation: str, target: str) -> None:
        request = RecordAuditEventRequest(
            reference=uuid.uuid4().hex,
            action=AuditAction.ACCESS_DENIED,
            actor=f"user:{caller.user_id}",
            object=target[:200],
            key_id=caller.key_id,
            details={"wanted": relation[:256]},
        )
        try:
            await self._client.call(AUDIT_SERVICE, "RecordAuditEvent", request, Empty)
        except RpcError as error:
            log.warning("access.denial_not_recorded", code=error.code)


def _tuple(user_id: str, relation: str, target: str) -> RelationTuple:
    return RelationTuple(subject=f"user:{user_id}", relation=relation, object=target)
