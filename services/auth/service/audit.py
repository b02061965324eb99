"""The audit log: events of apps, pages for their owners, and denied access to auth itself."""

import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from typing_extensions import override

from services.auth.domain.keys import audit_log_of
from services.auth.domain.sharing import owners
from services.auth.ports.audit import AuditLog
from services.auth.ports.relations import Relations
from services.contracts.auth.audit import (
    AuditAction,
    ListAuditEventsRequest,
    ListAuditEventsResponse,
    RecordAuditEventRequest,
)
from services.kit.access.authorization import DenialAudit
from services.kit.access.identity import CallerIdentity
from services.kit.clock import Clock
from services.kit.errors import RpcError
from services.kit.http.cursors import decode_cursor, encode_cursor

MAX_OBJECT_LENGTH: Final = 200
"""Characters of a denied object that are recorded; callers choose its name."""


@dataclass(frozen=True, slots=True)
class AuditService:
    """Reads the log, and adds the events of apps."""

    events: AuditLog
    relations: Relations
    kept: timedelta
    clock: Clock

    async def page(
        self, request: ListAuditEventsRequest, caller: CallerIdentity
    ) -> ListAuditEventsResponse:
        """A page of the caller's log, or of an organization's."""
        organization = request.organization_id
        owner = f"organization:{organization}" if organization else f"user:{caller.user_id}"
        scope = f"audit {owner} {request.action}"
        before = decode_cursor(scope, request.cursor) if request.cursor else None
        events, more = await self.events.page(
            owner, request.action, limit=request.limit, before=before
        )
        cursor = encode_cursor(scope, more) if more is not None else None
        return ListAuditEventsResponse(events=events, next_cursor=cursor)

    async def record(self, request: RecordAuditEventRequest) -> None:
        """Add an event to the named log, or else to that of the object's owner."""
        owner = request.owner or await _owners_log(
            self.relations, request.object or "", request.actor
        )
        await self.events.record(
            request.action,
            actor=request.actor,
            owner=owner,
            object=request.object,
            key_id=request.key_id,
            details=request.details,
            reference=request.reference,
        )

    async def purge(self) -> None:
        await self.events.purge(self.clock() - self.kept)


class LocalDenialAudit(DenialAudit):
    """Records denied access to auth's own routes, which needs no RPC."""

    def __init__(self, relations: Relations, events: AuditLog) -> None:
        super().__init__()
        self._relations = relations
        self._events = events

    @override
    async def record(self, caller: CallerIdentity, relation: str, target: str) -> None:
        await self._events.record(
            AuditAction.ACCESS_DENIED,
            actor=caller.user_id,
            owner=await _owners_log(self._relations, target, caller.user_id),
            object=target[:MAX_OBJECT_LENGTH],
            key_id=caller.key_id,
            details={"wanted": relation, **caller.audit_details},
            reference=uuid.uuid4().hex,
        )


async def _owners_log(relations: Relations, target: str, actor: str) -> str:
    """The log of an object's owner; the actor's if the owner is unknown."""
    try:
        known = owners(await relations.read(target)) if ":" in target else set[str]()
    except RpcError:
        known = set[str]()  # unknown type, or OpenFGA does not answer
    kind, _, name = min(known, default=f"user:{actor}").partition(":")
    return audit_log_of(name) if kind == "user" else f"{kind}:{name}"
