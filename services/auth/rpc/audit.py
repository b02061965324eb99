"""`yocaso.auth.v1.AuditService`."""

from typing import Annotated

from fastapi import Depends

from services.auth.rpc.access import Control, require_admin
from services.auth.service.audit import AuditService
from services.contracts.auth.audit import (
    AUDIT_SERVICE,
    ListAuditEventsRequest,
    ListAuditEventsResponse,
    RecordAuditEventRequest,
)
from services.kit.access.authorization import Caller, CallingApp
from services.kit.contract import Empty
from services.kit.http.dependencies import provided
from services.kit.http.rpc import RpcRouter

rpc = RpcRouter(AUDIT_SERVICE)

Deps = Annotated[AuditService, Depends(provided(AuditService))]


@rpc.method
async def list_audit_events(
    request: ListAuditEventsRequest, caller: Caller, control: Control, deps: Deps
) -> ListAuditEventsResponse:
    await require_admin(control, caller, request.organization_id)
    return await deps.page(request, caller)


@rpc.method
async def record_audit_event(request: RecordAuditEventRequest, _: CallingApp, deps: Deps) -> Empty:
    await deps.record(request)
    return Empty()
