"""The rows of a user in Postgres, for the deletion of an account."""

from typing import Any

from sqlalchemy import Text, and_, case, cast, column, delete, func, literal, or_, select, update
from sqlalchemy.dialects.postgresql import JSONB

from services.auth.tables import api_key_charges, api_key_days, api_keys, audit_events, sessions
from services.kit.storage.db import Database


class PostgresUserRecords:
    """`UserRecords` in the tables of API keys, sessions and audit events."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def revoke_keys(self, user_id: str) -> None:
        active = update(api_keys).where(_own_keys(user_id), api_keys.c.revoked_at.is_(None))
        revoked = {"revoked_at": func.now(), "previous_start": None, "previous_digest": None}
        await self._database.execute(active.values(revoked))

    async def count(self, user_id: str, audit_owner: str) -> dict[str, int]:
        counts = select(
            _count(api_keys, _own_keys(user_id)).label("apiKeys"),
            _count(sessions, sessions.c.user_id == user_id).label("sessions"),
            _count(audit_events, audit_events.c.owner == audit_owner).label("auditEvents"),
        )
        return dict((await self._database.execute(counts)).mappings().one())

    async def key_ids(self, user_id: str) -> list[str]:
        found = select(api_keys.c.key_id).where(_own_keys(user_id))
        return list((await self._database.execute(found)).scalars())

    async def erase_key(self, key_id: str) -> None:
        async with self._database.transaction() as transaction:
            for table in (api_key_charges, api_key_days, api_keys):
                await transaction.execute(delete(table).where(table.c.key_id == key_id))

    async def erase(self, user_id: str, audit_owner: str, pseudonym: str) -> None:
        await self._database.execute(delete(sessions).where(sessions.c.user_id == user_id))
        own_log = audit_events.c.owner == audit_owner
        await self._database.execute(delete(audit_events).where(own_log))
        await self._database.execute(_pseudonymize(user_id, pseudonym))


def _own_keys(user_id: str) -> Any:
    return and_(api_keys.c.user_id == user_id, api_keys.c.organization_id.is_(None))


def _count(table: Any, condition: Any) -> Any:
    return select(func.count()).select_from(table).where(condition).scalar_subquery()


def _pseudonymize(user_id: str, pseudonym: str) -> Any:
    actor, details = audit_events.c.actor, audit_events.c.details
    entry = func.jsonb_each(details).table_valued("key", column("value", JSONB))
    value = case(
        (entry.c.value == _json(user_id), _json(pseudonym)),
        (entry.c.value == _json(f"user:{user_id}"), _json(f"user:{pseudonym}")),
        else_=entry.c.value,
    )
    rewritten = func.coalesce(func.jsonb_object_agg(entry.c.key, value), literal({}, JSONB))
    return (
        update(audit_events)
        .where(or_(actor == user_id, cast(details, Text).contains(user_id)))
        .values(
            actor=case((actor == user_id, pseudonym), else_=actor),
            details=select(rewritten).select_from(entry).scalar_subquery(),
        )
    )


def _json(text: str) -> Any:
    return literal(text, JSONB)
