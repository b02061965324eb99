"""The log of security events."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

from services.contracts.auth.audit import AuditAction, AuditEvent


class AuditLog(Protocol):
    """Events, once written never changed."""

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
        connection: Any = None,
    ) -> None:
        """Add an event to the log of `owner` (`user:…` or `organization:…`), in the transaction of `connection` if given.

        A repeated `reference` is recorded once.
        """
        ...

    async def page(
        self, owner: str, action: AuditAction | None, *, limit: int, before: int | None
    ) -> tuple[list[AuditEvent], int | None]:
        """The newest events of a log after a position, and where the next page begins."""
        ...

    async def purge(self, until: datetime) -> None:
        """Forget what is older."""
        ...
