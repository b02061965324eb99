"""Security events: `yocaso.auth.v1.AuditService`."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field, StringConstraints

from services.contracts.auth.keys import OrganizationId
from services.contracts.paging import Cursor, PageSize
from services.kit.contract import Empty, Message, RpcService, Timestamp
from services.kit.errors import ErrorCode

AUDIT_READ: Final = "audit:read"


class AuditAction(StrEnum):
    """Kinds of security event."""

    KEY_CREATED = "KEY_CREATED"
    KEY_UPDATED = "KEY_UPDATED"
    KEY_ROTATED = "KEY_ROTATED"
    KEY_REVOKED = "KEY_REVOKED"
    TOKEN_EXCHANGED = "TOKEN_EXCHANGED"  # noqa: S105 - an action, not a secret
    TOKEN_REVOKED = "TOKEN_REVOKED"  # noqa: S105
    TOKEN_REUSED = "TOKEN_REUSED"  # noqa: S105
    ACCESS_DENIED = "ACCESS_DENIED"
    SHARING_CHANGED = "SHARING_CHANGED"
    ACCOUNT_DELETED = "ACCOUNT_DELETED"
    CONVERSATION_DELETED = "CONVERSATION_DELETED"


Details = Annotated[
    dict[
        Annotated[str, StringConstraints(max_length=64)],
        Annotated[str, StringConstraints(max_length=256)],
    ],
    Field(max_length=8),
]


class AuditEvent(Message):
    """One security event: the user `actor` did `action` to `object`, such as `api_key:key_…`. Holds no secrets.

    `owner` names the audit log: `user:<user id>` or `organization:<id>`. `keyId` is the API key used or exchanged.
    `details.app` is the app that called for the user, if it was not the edge.
    """

    event_id: str
    action: AuditAction
    actor: str
    owner: str
    object: str | None = None
    key_id: str | None = None
    details: dict[str, str] = Field(default_factory=dict)
    at: Timestamp


class ListAuditEventsRequest(Message):
    """Lists the caller's events, or those of an organization the caller administers, newest first."""

    organization_id: OrganizationId | None = None
    action: AuditAction | None = None
    limit: PageSize = 50
    cursor: Cursor | None = None


class ListAuditEventsResponse(Message):
    """`nextCursor` is absent on the last page."""

    events: list[AuditEvent]
    next_cursor: str | None = None


class RecordAuditEventRequest(Message):
    """Records an event of another app, such as a denied access check; idempotent by `reference`.

    `owner` (`user:<user id>` or `organization:<id>`) defaults to the owner of the object, else to the actor.
    """

    reference: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    action: AuditAction
    actor: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    owner: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    object: Annotated[str, StringConstraints(max_length=200)] | None = None
    key_id: Annotated[str, StringConstraints(max_length=64)] | None = None
    details: Details = Field(default_factory=dict)


AUDIT_SERVICE: Final = RpcService("yocaso.auth.v1.AuditService", "Audit log of security events.")
LIST_AUDIT_EVENTS: Final = AUDIT_SERVICE.unary(
    "ListAuditEvents",
    ListAuditEventsRequest,
    ListAuditEventsResponse,
    "List security events",
    raises=(
        ErrorCode.INVALID_ARGUMENT,
        ErrorCode.UNAUTHENTICATED,
        ErrorCode.PERMISSION_DENIED,
        ErrorCode.NOT_FOUND,
        ErrorCode.UNAVAILABLE,
    ),
    scope=AUDIT_READ,
)
RECORD_AUDIT_EVENT: Final = AUDIT_SERVICE.unary(
    "RecordAuditEvent",
    RecordAuditEventRequest,
    Empty,
    "Record a security event",
    raises=(ErrorCode.INVALID_ARGUMENT, ErrorCode.UNAVAILABLE),
    internal=True,
)
