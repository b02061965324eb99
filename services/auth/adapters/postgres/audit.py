"""The audit log in Postgres."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert

from services.auth.tables import audit_events
from services.contracts.auth.audit import AuditAction, AuditEvent
from services.kit.clock import Clock
from services.kit.storage.db import Database, Transaction


class PostgresAuditLog:
    """`AuditLog` in the table `audit_events`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

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
        transaction: Transaction | None = None,
    ) -> None:
        row = insert(audit_events).values(
            action=action,
            actor=actor,
            owner=owner,
            object=object,
            key_id=key_id,
            details=dict(details),
            at=self._clock(),
            reference=reference,
        )
        once = row.on_conflict_do_nothing(index_elements=[audit_events.c.reference])
        await (transaction or self._database).execute(once)

    async def page(
        self, owner: str, action: AuditAction | None, *, limit: int, before: int | None
    ) -> tuple[list[AuditEvent], int | None]:
        query = select(audit_events).where(audit_events.c.owner == owner)
        if action is not None:
            query = query.where(audit_events.c.action == action)
        if before is not None:
            query = query.where(audit_events.c.number < before)
        newest = query.order_by(audit_events.c.number.desc()).limit(limit + 1)
        rows = list((await self._database.execute(newest)).mappings())
        more = rows[limit - 1]["number"] if len(rows) > limit else None
        return [_event(row) for row in rows[:limit]], more

    async def purge(self, until: datetime) -> None:
        await self._database.execute(delete(audit_events).where(audit_events.c.at < until))


def _event(row: Mapping[Any, Any]) -> AuditEvent:
    return AuditEvent(
        event_id=f"event_{row['number']}",
        action=row["action"],
        actor=row["actor"],
        owner=row["owner"],
        object=row["object"],
        key_id=row["key_id"],
        details=row["details"],
        at=row["at"],
    )
