"""API keys and their charges in Postgres."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import case, delete, func, insert, literal, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from services.auth.domain.keys import LAST_USED_EVERY, Key, period_start
from services.auth.ports.keys import KeyAndSpend
from services.auth.tables import api_key_charges, api_key_days, api_keys
from services.contracts.auth.keys import BudgetPeriod
from services.kit.storage.db import Database, Transaction

CHARGES_KEPT: Final = timedelta(days=35)
"""How long a repeated reference is recognised; the sums by day stay."""


class PostgresApiKeys:
    """`ApiKeys` in the tables `api_keys`, `api_key_charges` and `api_key_days`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, transaction: Transaction, key: Key) -> None:
        await transaction.execute(insert(api_keys).values(_row(key)))

    async def find(self, start: str, at: datetime) -> KeyAndSpend | None:
        return await self._one(
            or_(api_keys.c.start == start, api_keys.c.previous_start == start), at
        )

    async def get(self, key_id: str, at: datetime) -> KeyAndSpend | None:
        return await self._one(api_keys.c.key_id == key_id, at)

    async def page(
        self,
        user_id: str,
        organization_id: str | None,
        at: datetime,
        *,
        limit: int,
        before: int | None,
    ) -> tuple[list[KeyAndSpend], int | None]:
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

    async def lock(self, transaction: Transaction, key_id: str, at: datetime) -> KeyAndSpend | None:
        query = _keys(at).where(api_keys.c.key_id == key_id).with_for_update(of=api_keys)
        return _first(await transaction.execute(query))

    async def save(self, transaction: Transaction, key: Key) -> None:
        changed = update(api_keys).where(api_keys.c.key_id == key.key_id)
        await transaction.execute(changed.values(_row(key)))

    async def record_use(self, key_id: str, at: datetime) -> None:
        stale = or_(
            api_keys.c.last_used_at.is_(None), api_keys.c.last_used_at <= at - LAST_USED_EVERY
        )
        use = update(api_keys).where(api_keys.c.key_id == key_id, stale).values(last_used_at=at)
        await self._database.execute(use)

    async def charge(self, key_id: str, reference: str, amount: float, at: datetime) -> None:
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
        old = api_key_charges.c.at < at - CHARGES_KEPT
        await self._database.execute(delete(api_key_charges).where(old))

    async def _one(self, condition: Any, at: datetime) -> KeyAndSpend | None:
        return _first(await self._database.execute(_keys(at).where(condition)))


def _keys(at: datetime) -> Any:
    periods = {
        period.value: literal(period_start(period, at), api_key_days.c.day.type)
        for period in BudgetPeriod
    }
    began = case(periods, value=api_keys.c.budget["period"].astext)
    spent = (
        select(func.coalesce(func.sum(api_key_days.c.amount), 0))
        .where(api_key_days.c.key_id == api_keys.c.key_id, api_key_days.c.day >= began)
        .scalar_subquery()
    )
    return select(api_keys, spent.label("spent"))


def _first(rows: Any) -> KeyAndSpend | None:
    row = rows.mappings().first()
    return _key(row) if row else None


def _key(row: Mapping[Any, Any]) -> KeyAndSpend:
    return Key.model_validate(dict(row)), float(row["spent"])


def _row(key: Key) -> dict[str, Any]:
    limits = {
        "rate_limit": key.rate_limit.model_dump(mode="json") if key.rate_limit else None,
        "budget": key.budget.model_dump(mode="json") if key.budget else None,
    }
    return key.model_dump(exclude={"rate_limit", "budget"}) | limits
