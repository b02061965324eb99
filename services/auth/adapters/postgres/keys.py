"""API keys in Postgres, and what was spent with them."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import case, delete, func, insert, literal, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.auth.adapters.postgres.outbox import PostgresOutbox
from services.auth.domain.keys import LAST_USED_EVERY, Key, KeyChange, log_of, period_began
from services.auth.ports.audit import AuditLog
from services.auth.ports.sessions import Revocations
from services.auth.tables import api_key_charges, api_key_days, api_keys
from services.contracts.auth.audit import AuditAction
from services.contracts.auth.authorization import MEMBER, OWNER, RelationTuple
from services.contracts.auth.keys import BudgetPeriod
from services.kit.failpoints import failpoint
from services.kit.storage.db import Database

CHARGES_KEPT: Final = timedelta(days=35)
"""How long a repeated reference is known; the sums by day stay."""


class PostgresApiKeys:
    """`ApiKeys` in the schema `auth`."""

    def __init__(
        self, database: Database, outbox: PostgresOutbox, audit: AuditLog, revocations: Revocations
    ) -> None:
        self._database = database
        self._outbox = outbox
        self._audit = audit
        self._revocations = revocations

    async def add(self, key: Key, *, actor: str) -> None:
        """Add a key with its facts and its event."""
        async with self._database.transaction() as connection:
            await connection.execute(insert(api_keys).values(_row(key)))
            await self._outbox.add(connection, _ownership(key))
            await self._record(AuditAction.KEY_CREATED, key, actor, connection)
        await failpoint("auth.key_created")
        await self._outbox.relay()

    async def find(self, start: str, at: datetime) -> tuple[Key, float] | None:
        """The key with a secret that begins like this."""
        return await self._one(
            or_(api_keys.c.start == start, api_keys.c.previous_start == start), at
        )

    async def get(self, key_id: str, at: datetime) -> tuple[Key, float] | None:
        """A key by its id."""
        return await self._one(api_keys.c.key_id == key_id, at)

    async def page(
        self,
        user_id: str,
        organization_id: str | None,
        at: datetime,
        *,
        limit: int,
        before: int | None,
    ) -> tuple[list[tuple[Key, float]], int | None]:
        """A page, newest first."""
        query = _keys(at).where(
            api_keys.c.user_id == user_id,
            api_keys.c.organization_id.is_not_distinct_from(organization_id),
        )
        if before is not None:
            query = query.where(api_keys.c.number < before)
        newest = query.order_by(api_keys.c.number.desc()).limit(limit + 1)
        rows = list((await self._database.execute(newest)).mappings())
        more = rows[limit - 1]["number"] if len(rows) > limit else None
        return [_key(row) for row in rows[:limit]], more

    async def change(
        self, key_id: str, decide: Callable[[Key], KeyChange | None], *, actor: str, at: datetime
    ) -> tuple[Key, float] | None:
        """Decide and change in one transaction, under a lock on the row."""
        async with self._database.transaction() as connection:
            query = _keys(at).where(api_keys.c.key_id == key_id).with_for_update(of=api_keys)
            row = (await connection.execute(query)).mappings().first()
            if row is None:
                return None
            key, spent = _key(row)
            change = decide(key)
            if change is None:
                return key, spent
            changed = update(api_keys).where(api_keys.c.key_id == key_id)
            await connection.execute(changed.values(_row(change.key)))
            await self._record(change.action, change.key, actor, connection)
            if change.revokes:
                await self._revocations.revoke("key_id", key_id, connection=connection)
        await failpoint("auth.key_changed")
        return await self.get(key_id, at)

    async def used(self, key_id: str, at: datetime) -> None:
        """Note a use; replicas that note it together write once."""
        stale = or_(
            api_keys.c.last_used_at.is_(None), api_keys.c.last_used_at <= at - LAST_USED_EVERY
        )
        note = update(api_keys).where(api_keys.c.key_id == key_id, stale).values(last_used_at=at)
        await self._database.execute(note)

    async def charge(self, key_id: str, reference: str, amount: float, at: datetime) -> None:
        """Book a cost and add it to its day, in one statement."""
        known = select(
            api_keys.c.key_id, literal(reference), literal(Decimal(repr(amount))), literal(at)
        ).where(api_keys.c.key_id == key_id)
        booked = (
            upsert(api_key_charges)
            .from_select(["key_id", "reference", "amount", "at"], known)
            .on_conflict_do_nothing()
            .returning(api_key_charges.c.key_id, api_key_charges.c.amount)
            .cte("booked")
        )
        day = literal(at.astimezone(UTC).date())
        sums = upsert(api_key_days).from_select(
            ["key_id", "day", "amount"], select(booked.c.key_id, day, booked.c.amount)
        )
        added = {"amount": api_key_days.c.amount + sums.excluded.amount}
        await self._database.execute(
            sums.on_conflict_do_update(index_elements=["key_id", "day"], set_=added)
        )

    async def purge(self, at: datetime) -> None:
        """Forget references that nobody repeats any more."""
        old = api_key_charges.c.at < at - CHARGES_KEPT
        await self._database.execute(delete(api_key_charges).where(old))

    async def _one(self, condition: Any, at: datetime) -> tuple[Key, float] | None:
        rows = await self._database.execute(_keys(at).where(condition))
        row = rows.mappings().first()
        return _key(row) if row else None

    async def _record(
        self, action: AuditAction, key: Key, actor: str, connection: AsyncConnection
    ) -> None:
        await self._audit.record(
            action,
            actor=actor,
            owner=log_of(key.user_id),
            object=f"api_key:{key.key_id}",
            details={"name": key.name},
            connection=connection,
        )


def _keys(at: datetime) -> Any:
    periods = {
        period.value: literal(period_began(period, at), api_key_days.c.day.type)
        for period in BudgetPeriod
    }
    began = case(periods, value=api_keys.c.budget["period"].astext)
    spent = (
        select(func.coalesce(func.sum(api_key_days.c.amount), 0))
        .where(api_key_days.c.key_id == api_keys.c.key_id, api_key_days.c.day >= began)
        .scalar_subquery()
    )
    return select(api_keys, spent.label("spent"))


def _key(row: Mapping[Any, Any]) -> tuple[Key, float]:
    return Key.model_validate(dict(row)), float(row["spent"])


def _row(key: Key) -> dict[str, Any]:
    limits = {
        "rate_limit": key.rate_limit.model_dump(mode="json") if key.rate_limit else None,
        "budget": key.budget.model_dump(mode="json") if key.budget else None,
    }
    return key.model_dump(exclude={"rate_limit", "budget"}) | limits


def _ownership(key: Key) -> list[RelationTuple]:
    target = f"api_key:{key.key_id}"
    owns = RelationTuple(subject=log_of(key.user_id), relation=OWNER, object=target)
    if key.organization_id is None:
        return [owns]
    organization = f"organization:{key.organization_id}"
    service_user = RelationTuple(
        subject=f"user:{key.user_id}", relation=MEMBER, object=organization
    )
    return [owns, service_user]
