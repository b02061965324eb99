"""Access checks and denial audit of auth's own routes."""

import uuid
from typing import Final

from typing_extensions import override

from services.auth.domain.keys import log_of as log_of_user
from services.auth.domain.sharing import owners
from services.auth.ports.audit import AuditLog
from services.auth.ports.feed import AccessFeed
from services.auth.ports.relations import Relations
from services.contracts.auth.audit import AuditAction
from services.contracts.auth.authorization import RelationTuple
from services.kit.access.authorization import DenialAudit
from services.kit.access.cache import AccessChanges, AccessCheck
from services.kit.access.identity import CallerIdentity
from services.kit.errors import RpcError

MAX_NAME: Final = 200


class OwnTuples:
    """`AccessSource` without a detour over another app."""

    def __init__(self, relations: Relations, feed: AccessFeed) -> None:
        self._relations = relations
        self._feed = feed

    async def check(self, check: AccessCheck) -> bool:
        """By the tuples as they are. UNAVAILABLE while OpenFGA is away."""
        asked = RelationTuple(
            subject=f"user:{check.user_id}", relation=check.relation, object=check.object
        )
        [holds] = await self._relations.check([asked], fresh=True)
        return holds

    async def changes(self, after: int | None) -> AccessChanges:
        """From the feed's own table."""
        return await self._feed.since(after)


class OwnDenials(DenialAudit):
    """`Denials` in the log of whoever owns the object, else of who was denied."""

    def __init__(self, relations: Relations, audit: AuditLog) -> None:
        super().__init__()
        self._relations = relations
        self._audit = audit

    @override
    async def record(self, caller: CallerIdentity, relation: str, target: str) -> None:
        """Add it to the log."""
        await self._audit.record(
            AuditAction.ACCESS_DENIED,
            actor=caller.user_id,
            owner=await log_of(self._relations, target, caller.user_id),
            object=target[:MAX_NAME],
            key_id=caller.key_id,
            details={"wanted": relation},
            reference=uuid.uuid4().hex,
        )


async def log_of(relations: Relations, target: str, actor: str) -> str:
    """In whose log an event about an object goes: `user:…` or `organization:…`."""
    try:
        known = owners(await relations.read(target)) if ":" in target else set[str]()
    except RpcError:
        known = set[str]()  # no such type, or nobody can tell now
    kind, _, name = min(known, default=f"user:{actor}").partition(":")
    return log_of_user(name) if kind == "user" else f"{kind}:{name}"
