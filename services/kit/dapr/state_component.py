"""Actor state through Dapr's state API, for any component with transactions and ETags."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final

from services.kit.background import TaskSet
from services.kit.dapr.pubsub.outbox import Outbox, OutboxEvent, require_outbox
from services.kit.dapr.sidecar import Sidecar, TooLarge
from services.kit.dapr.state_rows import StateStoreError, StateWrite, StoredValue
from services.kit.group_commit import GroupCommit

if TYPE_CHECKING:  # without events, no Postgres driver is loaded
    from services.kit.storage.db import Database

READS_AT_ONCE: Final = 16
DEFER_SECONDS: Final = 0.005
"""How long deferred reads are collected before one request reads them all."""

# per event: $1 apps, $2 topics, $3 keys, $4 ids, $5 state keys
ANNOUNCE: Final = """
    INSERT INTO events.outbox (app, topic, key, event_id, state_key)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
"""


class ComponentStateStore:
    """`StateStore` over the component `statestore`; a transaction returns no ETag, so it has to be read."""

    def __init__(
        self, sidecar: Sidecar, database: "Database", outbox: Outbox | None = None
    ) -> None:
        self._sidecar = sidecar
        self._database = database
        self._outbox = outbox
        self._group = GroupCommit[StateWrite](
            sidecar.write,
            is_refusal=lambda error: isinstance(error, StateStoreError) and error.answered,
            key_of=lambda write: write.key,
            size_of=lambda write: write.size,
        )
        self._reads = DeferredReads(self.read, self.read_many)

    async def read(self, key: str) -> StoredValue:
        return await self._sidecar.read(key)

    async def read_many(self, keys: Sequence[str]) -> list[StoredValue]:
        """Read rows in the order of `keys`; a missing row has no data.

        Each missing row is read again separately: if the store's connection breaks midway, daprd 1.18 returns the
        rows that it has, without an error.
        """
        found = await self._read_in_parts(keys)
        missing = [row.key for row in found if not row.data]
        reread = dict[str, StoredValue]()
        for first in range(0, len(missing), READS_AT_ONCE):
            some = missing[first : first + READS_AT_ONCE]
            reread |= zip(some, await asyncio.gather(*map(self.read, some)), strict=True)
        return [reread.get(row.key, row) for row in found]

    async def _read_in_parts(self, keys: Sequence[str]) -> list[StoredValue]:
        """Read by one request; a response over the message limit is split in halves."""
        if not keys:
            return []
        try:
            return await self._sidecar.read_bulk(keys)
        except TooLarge:
            if len(keys) == 1:
                raise
        half = len(keys) // 2
        return [*await self._read_in_parts(keys[:half]), *await self._read_in_parts(keys[half:])]

    async def write(
        self,
        writes: Sequence[StateWrite],
        *,
        events: Sequence[OutboxEvent] = (),
        exclusive: bool = False,
    ) -> str:
        """Write all or nothing; returns "", as the API does not return the ETag."""
        outbox = require_outbox(self._outbox, events)
        members = [*writes, *await self._announce(events)]
        if exclusive:
            await self._sidecar.write(members)
        else:
            await self._group.write(members)
        if outbox is not None:
            outbox.wake()
        return ""

    async def _announce(self, events: Sequence[OutboxEvent]) -> list[StateWrite]:
        """The rows that hold the events in the state transaction, announced to the relay before it.

        The store cannot write the outbox in its transaction. The relay publishes an announced event if its row exists,
        and drops it after a while if it does not: then the transaction was refused.
        """
        rows = [StateWrite(f"outbox/{each.id}", each.body.encode()) for each in events]
        if rows:
            await self._database.fetch(
                ANNOUNCE,
                [each.topic.app_id for each in events],
                [each.topic.name for each in events],
                [each.key for each in events],
                [each.id for each in events],
                [row.key for row in rows],
            )
        return rows

    async def read_deferred(self, key: str) -> StoredValue:
        """Read one row with other deferred reads, after DEFER_SECONDS at the latest."""
        return await self._reads.read(key)

    def flush_reads(self) -> None:
        """Begin the deferred reads now."""
        self._reads.flush()


class DeferredReads:
    """Collects reads that no caller waits for yet, and does them by one request."""

    def __init__(
        self,
        read: Callable[[str], Coroutine[Any, Any, StoredValue]],
        read_many: Callable[[Sequence[str]], Coroutine[Any, Any, list[StoredValue]]],
    ) -> None:
        self._read = read
        self._read_many = read_many
        self._pending: dict[str, asyncio.Future[StoredValue]] = {}
        self._tasks = TaskSet()
        self._timer: asyncio.TimerHandle | None = None

    async def read(self, key: str) -> StoredValue:
        """One row; concurrent reads of a row share one result."""
        if not self._pending:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(DEFER_SECONDS, self.flush)
        if key not in self._pending:
            self._pending[key] = asyncio.Future()
        return await asyncio.shield(self._pending[key])

    def flush(self) -> None:
        """Begin the pending reads now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        pending, self._pending = self._pending, {}
        if pending:
            self._tasks.spawn(self._finish(pending))

    async def _finish(self, pending: dict[str, asyncio.Future[StoredValue]]) -> None:
        keys = list(pending)
        try:
            found = [await self._read(keys[0])] if len(keys) == 1 else await self._read_many(keys)
        except Exception as error:
            for future in pending.values():
                future.set_exception(error)
                future.exception()  # retrieved here: every reader may have been cancelled
        else:
            for row in found:
                pending[row.key].set_result(row)
        finally:
            for future in pending.values():
                future.cancel()
