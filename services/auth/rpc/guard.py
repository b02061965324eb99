"""What auth's own routes ask: the facts that it keeps, and its own audit log."""

import asyncio
import uuid
from collections.abc import Sequence
from typing import Final

import structlog

from services.auth.domain.keys import log_of as log_of_user
from services.auth.domain.sharing import owners
from services.auth.ports.audit import AuditLog
from services.auth.ports.relations import Relations
from services.contracts.audit import AuditAction
from services.contracts.authorization import RelationTuple
from services.kit.authorization import Question
from services.kit.errors import RpcError
from services.kit.identity import CallerIdentity

MAX_WAITING: Final = 1000
MAX_NAME: Final = 200

log = structlog.get_logger()


class OwnFacts:
    """`Judge` without a detour over another app."""

    def __init__(self, relations: Relations) -> None:
        self._relations = relations

    async def judge(self, questions: Sequence[Question], *, fresh: bool) -> list[bool]:
        """Answers in order. UNAVAILABLE while OpenFGA is away."""
        facts = [
            RelationTuple(subject=f"user:{q.user_id}", relation=q.relation, object=q.object)
            for q in questions
        ]
        return await self._relations.check(facts, fresh=fresh)


class OwnDenials:
    """`Denials`: recorded beside the call, in the log of whoever owns the object, else of who was denied."""

    def __init__(self, relations: Relations, audit: AuditLog) -> None:
        self._relations = relations
        self._audit = audit
        self._recording: set[asyncio.Task[None]] = set()

    async def denied(self, caller: CallerIdentity, relation: str, target: str) -> None:
        """Begin to record it."""
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
        try:
            await self._audit.record(
                AuditAction.ACCESS_DENIED,
                actor=caller.user_id,
                owner=await log_of(self._relations, target, caller.user_id),
                object=target[:MAX_NAME],
                key_id=caller.key_id,
                details={"wanted": relation},
                reference=uuid.uuid4().hex,
            )
        except RpcError as error:
            log.warning("access.denial_not_recorded", code=error.code)


async def log_of(relations: Relations, target: str, actor: str) -> str:
    """In whose log an event about an object goes: `user:…` or `organization:…`."""
    try:
        known = owners(await relations.read(target)) if ":" in target else set[str]()
    except RpcError:
        known = set[str]()  # no such type, or nobody can tell now
    kind, _, name = min(known, default=f"user:{actor}").partition(":")
    return log_of_user(name) if kind == "user" else f"{kind}:{name}"
