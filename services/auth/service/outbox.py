"""Delivers committed changes of relationship tuples to OpenFGA, in order."""

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from services.auth.ports.relations import Outbox, PendingChange, Relations
from services.contracts.auth.authorization import RelationTuple
from services.kit.errors import ErrorCode, RpcError
from services.kit.failpoints import failpoint
from services.kit.storage.db import Database, Transaction

BATCH: Final = 20
"""Changes per transaction, which holds the advisory lock."""

log = structlog.get_logger()


class TupleOutbox:
    """Adds changes in a caller's transaction and delivers them afterwards, from any replica."""

    def __init__(self, database: Database, outbox: Outbox, relations: Relations) -> None:
        self._database = database
        self._outbox = outbox
        self._relations = relations
        self._relaying = asyncio.Lock()

    async def add(
        self,
        transaction: Transaction,
        writes: Sequence[RelationTuple] = (),
        deletes: Sequence[RelationTuple] = (),
    ) -> None:
        """Add a change of at most 100 tuples."""
        await self._outbox.add(transaction, writes, deletes)

    async def relay(self) -> bool:
        """Deliver every change committed before the call; False while OpenFGA or Postgres does not answer."""
        try:
            async with self._relaying:  # else each caller would hold a connection while it waits
                while await self._deliver_batch():
                    pass
        except RpcError as error:
            log.warning("outbox.delivery_failed", code=error.code)
            return False
        return True

    async def deliver(self) -> None:
        """Deliver every change committed before the call; UNAVAILABLE if it is delivered later."""
        if not await self.relay():
            raise RpcError(
                ErrorCode.UNAVAILABLE, "The change is stored, but takes effect only shortly."
            )

    async def _deliver_batch(self) -> bool:
        async with self._database.exclusive("auth.outbox") as transaction:
            pending = await self._outbox.pending(transaction, BATCH)
            for change in pending:
                await self._deliver(transaction, change)
        return len(pending) == BATCH

    async def _deliver(self, transaction: Transaction, change: PendingChange) -> None:
        await failpoint("auth.outbox.deliver")
        try:
            await self._relations.write(change.writes, change.deletes)
        except RpcError as error:
            if error.code is not ErrorCode.INVALID_ARGUMENT:
                raise
            log.error("outbox.refused", number=change.number)  # a bug; it must not block later ones
            await self._outbox.refuse(transaction, change.number)
        else:
            await self._outbox.remove(transaction, change.number)
