"""The outbox of tuple changes in Postgres."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, func, insert, select, update

from services.auth.ports.relations import PendingChange
from services.auth.tables import outbox
from services.contracts.auth.authorization import RelationTuple
from services.kit.storage.db import Transaction


class PostgresOutbox:
    """`Outbox` in the table `outbox`."""

    async def add(
        self,
        transaction: Transaction,
        writes: Sequence[RelationTuple],
        deletes: Sequence[RelationTuple],
    ) -> None:
        values = {"writes": _to_json(writes), "deletes": _to_json(deletes)}
        await transaction.execute(insert(outbox).values(values))

    async def pending(self, transaction: Transaction, limit: int) -> list[PendingChange]:
        waiting = select(outbox).where(outbox.c.refused_at.is_(None)).order_by(outbox.c.number)
        rows = await transaction.execute(waiting.limit(limit))
        return [
            PendingChange(row.number, _from_json(row.writes), _from_json(row.deletes))
            for row in rows
        ]

    async def remove(self, transaction: Transaction, number: int) -> None:
        await transaction.execute(delete(outbox).where(outbox.c.number == number))

    async def refuse(self, transaction: Transaction, number: int) -> None:
        refused = update(outbox).where(outbox.c.number == number).values(refused_at=func.now())
        await transaction.execute(refused)


def _to_json(tuples: Sequence[RelationTuple]) -> list[dict[str, Any]]:
    return [each.model_dump(mode="json") for each in tuples]


def _from_json(stored: Sequence[Any]) -> list[RelationTuple]:
    return [RelationTuple.model_validate(each) for each in stored]
