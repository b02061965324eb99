"""The log of security events."""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from services.contracts.auth.audit import AuditAction, AuditEvent

if TYPE_CHECKING:
    from services.kit.storage.db import Transaction


class AuditLog(Protocol):
    """Append-only until events are purged."""

    async def record(
        self,
        action: AuditAction,
        *,
        actor: str,
        owner: str,
        object: str | None = None,
        key_id: str | None = None,
        details: Mapping[str, str] = {},
        reference: str | None = None,
        transaction: "Transaction | None" = None,
    ) -> None:
        """Add an event to the log of `owner` (`user:…` or `organization:…`), once per `reference`."""
        ...

    async def page(
        self, owner: str, action: AuditAction | None, *, limit: int, before: int | None
    ) -> tuple[list[AuditEvent], int | None]:
        """The newest events before a position, and the position of the next page."""
        ...

    async def purge(self, until: datetime) -> None:
        """Delete older events."""
        ...
