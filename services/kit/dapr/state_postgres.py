"""Actor state by SQL on the table of Dapr's `state.postgresql` v2, bypassing the sidecar.

Rows, keys and ETags have the component's format, so both can be used at the same time (decision 15).
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import asyncpg

from services.kit.dapr.pubsub.outbox import Outbox, OutboxEvent, require_outbox
from services.kit.dapr.state_rows import StateStoreError, StateWrite, StoredValue, WriteMode
from services.kit.errors import RpcError
from services.kit.group_commit import GroupCommit
from services.kit.storage.db import Database

# $1 keys
READ: Final = """
    SELECT key, value, etag::text FROM dapr.state
    WHERE key = ANY($1::text[]) AND (expires_at IS NULL OR expires_at >= now())
"""

# per write: $1 keys, $2 values (NULL deletes), $3 new ETags, $4 modes, $5 expected ETags of MATCH.
# A failed condition aborts the statement: an existing NEW row by the primary key, the others by division by zero.
WRITE: Final = """
    WITH w AS (
        SELECT * FROM unnest($1::text[], $2::bytea[], $3::uuid[], $4::text[], $5::uuid[])
            AS w(key, value, etag, mode, old)
    ), matched AS (
        UPDATE dapr.state s
        SET value = w.value, etag = w.etag, updated_at = now(), expires_at = NULL
        FROM w WHERE w.mode = 'MATCH' AND w.value IS NOT NULL AND s.key = w.key AND s.etag = w.old
        RETURNING 1
    ), added AS (
        INSERT INTO dapr.state (key, value, etag)
        SELECT key, value, etag FROM w WHERE mode = 'NEW' AND value IS NOT NULL
    ), put AS (
        INSERT INTO dapr.state (key, value, etag)
        SELECT key, value, etag FROM w WHERE mode = 'ANY' AND value IS NOT NULL
        ON CONFLICT (key) DO UPDATE SET value = excluded.value, etag = excluded.etag,
            updated_at = now(), expires_at = NULL
    ), gone AS (
        DELETE FROM dapr.state s USING w
        WHERE w.value IS NULL AND s.key = w.key AND (w.mode = 'ANY' OR s.etag = w.old)
        RETURNING w.mode
    )
    SELECT 1 / ((SELECT count(*) FROM w WHERE mode = 'MATCH')
        = (SELECT count(*) FROM matched) + (SELECT count(*) FROM gone WHERE mode = 'MATCH'))::int
"""

# as WRITE, and per event for the outbox: $6 apps, $7 topics, $8 keys, $9 ids, $10 bodies
WRITE_AND_PUBLISH: Final = WRITE.replace(
    "    )\n    SELECT 1 /",
    """    ), published AS (
        INSERT INTO events.outbox (app, topic, key, event_id, body)
        SELECT * FROM unnest($6::text[], $7::text[], $8::text[], $9::text[], $10::text[])
    )
    SELECT 1 /""",
)


@dataclass(frozen=True, slots=True)
class _Write:
    """A write and the new ETag of its row."""

    asked: StateWrite
    etag: str = field(default_factory=lambda: str(uuid.uuid4()))


class PostgresStateStore:
    """`StateStore` over the table `dapr.state`, with the keys of one app."""

    def __init__(self, database: Database, app_id: str, outbox: Outbox | None = None) -> None:
        self._database = database
        self._prefix = f"{app_id}||"
        self._outbox = outbox
        self._group = GroupCommit[_Write | OutboxEvent](
            self._transact,
            is_refusal=lambda error: isinstance(error, StateStoreError) and error.answered,
            key_of=lambda write: write.asked.key if isinstance(write, _Write) else "",
            size_of=lambda write: (
                write.asked.size if isinstance(write, _Write) else len(write.body)
            ),
        )

    async def read(self, key: str) -> StoredValue:
        return (await self.read_many([key]))[0]

    async def read_many(self, keys: Sequence[str]) -> list[StoredValue]:
        """Read rows in the order of `keys`; a missing row has no data."""
        rows = await self._run(READ, [self._prefix + key for key in keys])
        found = {row[0]: (row[1], row[2]) for row in rows}
        return [StoredValue(key, *found.get(self._prefix + key, (b"", ""))) for key in keys]

    async def write(
        self,
        writes: Sequence[StateWrite],
        *,
        events: Sequence[OutboxEvent] = (),
        exclusive: bool = False,
    ) -> str:
        """Write all or nothing; returns the first row's new ETag."""
        named = [_Write(each) for each in writes]
        outbox = require_outbox(self._outbox, events)
        if exclusive:
            await self._transact([*named, *events])
        else:
            await self._group.write([*named, *events])
        if outbox is not None:
            outbox.wake()
        return named[0].etag

    async def read_deferred(self, key: str) -> StoredValue:
        """As `read`: writes return the ETag, so no read is deferred here."""
        return await self.read(key)

    def flush_reads(self) -> None:
        """No-op: no read is deferred here."""

    async def _transact(self, members: Sequence[_Write | OutboxEvent]) -> None:
        writes = [each for each in members if isinstance(each, _Write)]
        events = [each for each in members if isinstance(each, OutboxEvent)]
        asked = [write.asked for write in writes]
        columns: list[list[Any]] = [
            [self._prefix + write.key for write in asked],
            [write.data for write in asked],
            [write.etag for write in writes],
            [write.mode for write in asked],
            [write.etag if write.mode is WriteMode.MATCH else None for write in asked],
        ]
        if not events:
            await self._run(WRITE, *columns)
            return
        columns += [
            [each.topic.app_id for each in events],
            [each.topic.name for each in events],
            [each.key for each in events],
            [each.id for each in events],
            [each.body for each in events],
        ]
        await self._run(WRITE_AND_PUBLISH, *columns)

    async def _run(self, statement: str, *arguments: Any) -> list[Any]:
        try:
            return await self._database.fetch(statement, *arguments)
        except RpcError as error:
            raise StateStoreError(f"Postgres: {error.code}") from error
        except asyncpg.PostgresError as error:
            raise StateStoreError(f"Postgres: {type(error).__name__}", answered=True) from error
