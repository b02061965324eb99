"""`yocaso.auth.v1.AuditService`."""

from services.contracts.audit import (
    AUDIT_SERVICE,
    ListAuditEventsRequest,
    ListAuditEventsResponse,
    RecordAuditEventRequest,
)
from services.kit.authorization import Caller, CallingApp
from services.kit.contract import Empty
from services.kit.errors import ErrorCode, RpcError
from services.kit.rpc import RpcRouter

rpc = RpcRouter(AUDIT_SERVICE)


@rpc.method
async def list_audit_events(request: ListAuditEventsRequest, _: Caller) -> ListAuditEventsResponse:
    """List security events."""
    raise RpcError(ErrorCode.UNIMPLEMENTED, "Not yet.")


@rpc.method
async def record_audit_event(request: RecordAuditEventRequest, _: CallingApp) -> Empty:
    """Record a security event."""
    raise RpcError(ErrorCode.UNIMPLEMENTED, "Not yet.")
