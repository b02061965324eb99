"""Facts on their way to OpenFGA: written with what they are about, delivered after, in order."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import structlog
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.auth.adapters.postgres.locks import alone
from services.auth.ports.relations import Relations
from services.auth.tables import outbox
from services.contracts.auth.authorization import RelationTuple
from services.kit.errors import ErrorCode, RpcError
from services.kit.failpoints import failpoint
from services.kit.storage.db import Database

BATCH: Final = 20
"""Changes that one relay takes from the table at a time."""

log = structlog.get_logger()


class PostgresOutbox:
    """Adds changes of facts in a caller's transaction; a relay delivers them, from whichever replica."""

    def __init__(self, database: Database, relations: Relations) -> None:
        self._database = database
        self._relations = relations
        self._relaying = asyncio.Lock()

    async def add(
        self,
        connection: AsyncConnection,
        writes: Sequence[RelationTuple] = (),
        deletes: Sequence[RelationTuple] = (),
    ) -> None:
        """Have facts changed once the transaction is committed. At most 100 together."""
        values = {"writes": _stored(writes), "deletes": _stored(deletes)}
        await connection.execute(insert(outbox).values(values))

    async def relay(self) -> bool:
        """Deliver all that waits; False where OpenFGA or Postgres is away: the next relay delivers it.

        After True, everything that was committed before the call is delivered.
        """
        try:
            async with self._relaying:  # one connection per process waits for the others, not many
                while await self._deliver():
                    pass
        except RpcError as error:
            log.warning("outbox.waits", code=error.code)
            return False
        return True

    async def deliver(self) -> None:
        """Deliver all that waits, for a caller that promises it.

        Raises:
            RpcError: UNAVAILABLE; it is delivered later.
        """
        if not await self.relay():
            raise RpcError(ErrorCode.UNAVAILABLE, "The change is kept, and takes effect shortly.")

    async def _deliver(self) -> bool:
        waiting = select(outbox).where(outbox.c.refused_at.is_(None)).order_by(outbox.c.number)
        async with alone(self._database, "outbox") as connection:
            rows = (await connection.execute(waiting.limit(BATCH))).mappings().all()
            for row in rows:
                done = await self._settle(row)
                await connection.execute(done)
        return len(rows) == BATCH

    async def _settle(self, row: Any) -> Any:
        this = outbox.c.number == row["number"]
        await failpoint("auth.outbox.deliver")
        try:
            await self._relations.write(_facts(row["writes"]), _facts(row["deletes"]))
        except RpcError as error:
            if error.code is not ErrorCode.INVALID_ARGUMENT:
                raise
            # A mistake of ours; the others need not wait for its repair.
            log.error("outbox.refused", number=row["number"])
            return update(outbox).where(this).values(refused_at=func.now())
        return delete(outbox).where(this)


def _stored(facts: Sequence[RelationTuple]) -> list[dict[str, Any]]:
    return [fact.model_dump(mode="json") for fact in facts]


def _facts(stored: Sequence[Any]) -> list[RelationTuple]:
    return [RelationTuple.model_validate(each) for each in stored]
