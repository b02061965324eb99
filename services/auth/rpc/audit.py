"""`yocaso.auth.v1.AuditService`."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends

from services.auth.ports.audit import AuditLog
from services.auth.ports.relations import Relations
from services.auth.rpc.guard import log_of
from services.auth.rpc.keys import WithControl, require_admin
from services.contracts.auth.audit import (
    AUDIT_SERVICE,
    ListAuditEventsRequest,
    ListAuditEventsResponse,
    RecordAuditEventRequest,
)
from services.kit.access.authorization import Caller, CallingApp
from services.kit.access.identity import CallerIdentity
from services.kit.contract import Empty
from services.kit.http.cursors import decode_cursor, encode_cursor
from services.kit.http.dependencies import provided
from services.kit.http.rpc import RpcRouter

rpc = RpcRouter(AUDIT_SERVICE)


@dataclass(frozen=True, slots=True)
class Audit:
    """Reads the log, and adds what apps report."""

    events: AuditLog
    relations: Relations

    async def page(
        self, request: ListAuditEventsRequest, caller: CallerIdentity
    ) -> ListAuditEventsResponse:
        """A page of the log of the caller, or of an organization."""
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
        """Add an event, in the log of whoever owns the object where no log is named."""
        owner = request.owner or await log_of(self.relations, request.object or "", request.actor)
        await self.events.record(
            request.action,
            actor=request.actor,
            owner=owner,
            object=request.object,
            key_id=request.key_id,
            details=request.details,
            reference=request.reference,
        )


With = Annotated[Audit, Depends(provided(Audit))]


@rpc.method
async def list_audit_events(
    request: ListAuditEventsRequest, caller: Caller, using: With, control: WithControl
) -> ListAuditEventsResponse:
    """List security events."""
    await require_admin(control, caller, request.organization_id)
    return await using.page(request, caller)


@rpc.method
async def record_audit_event(request: RecordAuditEventRequest, _: CallingApp, using: With) -> Empty:
    """Record a security event."""
    await using.record(request)
    return Empty()
