"""The change feed in Postgres.

A removal is written down before it is made in OpenFGA, and gets its position after. All positions come from one row,
whose lock is held until the commit: they become visible in their order, which a sequence would not give.
"""

import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any, Final

from services.kit.access.cache import EVERYTHING, AccessChange, AccessChanges
from services.kit.storage.db import Database

MAX_READ: Final = 1000
"""Changes that a reader gets at once; past that it is told that everything changed."""
ABANDONED_SECONDS: Final = 10.0
"""When a removal that was begun gets its position from another: longer than all tries of a call to OpenFGA take."""
KEPT_SECONDS: Final = 300.0
"""How far back readers can go; they read every two seconds."""
PURGE_BATCH: Final = 1000

BEGIN: Final = "INSERT INTO auth.access_changes (id, changes) VALUES ($1, $2)"
# An abandoned change may have got a position already, or be purged: it gets one after the removal all the same.
PUBLISH: Final = """
    WITH next AS (UPDATE auth.access_feed SET position = position + 1 RETURNING position)
    INSERT INTO auth.access_changes (id, changes, position) SELECT $1, $2, position FROM next
    ON CONFLICT (id) DO UPDATE SET position = excluded.position, at = now()
"""
PUBLISH_ABANDONED: Final = """
    WITH late AS (
        SELECT id FROM auth.access_changes
        WHERE position IS NULL AND at < now() - make_interval(secs => $1) LIMIT 100
    ), next AS (
        UPDATE auth.access_feed SET position = position + 1 WHERE EXISTS (SELECT FROM late)
        RETURNING position
    )
    UPDATE auth.access_changes SET position = next.position, at = now()
    FROM next WHERE id IN (SELECT id FROM late) RETURNING id
"""
# One statement, so one snapshot: the position is that of the last change that is in it.
READ: Final = """
    SELECT feed.position, feed.purged, found.changes
    FROM auth.access_feed AS feed LEFT JOIN LATERAL (
        SELECT position, changes FROM auth.access_changes
        WHERE position > $1 ORDER BY position LIMIT $2
    ) AS found ON true
    ORDER BY found.position
"""
# `at` once more in the DELETE: a row that is published anew meanwhile has another.
PURGE: Final = """
    WITH old AS (
        DELETE FROM auth.access_changes WHERE at < now() - make_interval(secs => $1) AND id IN (
            SELECT id FROM auth.access_changes
            WHERE position IS NOT NULL AND at < now() - make_interval(secs => $1)
            ORDER BY position LIMIT $2
        ) RETURNING position
    )
    UPDATE auth.access_feed SET purged = GREATEST(purged, (SELECT max(position) FROM old))
    RETURNING (SELECT count(*) FROM old)
"""


class PostgresAccessFeed:
    """`AccessFeed` in the schema `auth`; calls `wake` after every change."""

    def __init__(self, database: Database, wake: Callable[[], Awaitable[None]]) -> None:
        self._database = database
        self._wake = wake

    @asynccontextmanager
    async def taking_away(self, changes: Sequence[AccessChange]) -> AsyncIterator[None]:
        """Two statements around the removal; none where nothing is taken away."""
        if not changes:
            yield
            return
        row = uuid.uuid4().hex, json.dumps([asdict(change) for change in changes])
        await self._database.fetch(BEGIN, *row)
        yield
        await self._database.fetch(PUBLISH, *row)
        await self._wake()

    async def since(self, position: int | None) -> AccessChanges:
        """By one statement."""
        after = -1 if position is None else position
        rows = await self._database.fetch(READ, after, MAX_READ + 1)
        last, purged, _ = rows[0]
        # A position from the future: the database was restored.
        if not purged <= after <= last or len(rows) > MAX_READ:
            return AccessChanges(last, [EVERYTHING])
        stored: list[Any] = [each for row in rows if row[2] for each in json.loads(row[2])]
        return AccessChanges(last, [AccessChange(**each) for each in stored])

    async def settle(self) -> None:
        """Publish what was begun by a process that died, or that could not say what came of it."""
        if await self._database.fetch(PUBLISH_ABANDONED, ABANDONED_SECONDS):
            await self._wake()

    async def purge(self) -> None:
        """Remove what no reader asks for any more."""
        while (await self._database.fetch_one(PURGE, KEPT_SECONDS, PURGE_BATCH))[0] == PURGE_BATCH:
            pass
