"""The feed of removed access in Postgres.

A removal is inserted before it is made in OpenFGA, and gets its position after. All positions come from one row,
locked until the commit, so they become visible in order; those of a sequence would not.
"""

import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import delete, func, literal, select, true, update
from sqlalchemy.dialects.postgresql import JSONB, insert

from services.auth.tables import access_changes, access_feed
from services.contracts.auth.topics import ACCESS_CHANGED, AccessChanged, RemovedAccess
from services.kit.access.cache import ANY_ACCESS_CHANGE, AccessChange, AccessChanges
from services.kit.dapr.pubsub.outbox import Outbox
from services.kit.storage.db import Database

MAX_READ: Final = 1000
"""Changes in one read; a reader that is further behind gets `ANY_ACCESS_CHANGE`."""
ABANDONED_SECONDS: Final = 10.0
"""Age at which another process publishes a removal: longer than all attempts of a call to OpenFGA."""
KEPT_SECONDS: Final = 300.0
"""Age at which a change is purged; readers poll every two seconds."""
PUBLISH_BATCH: Final = 100
PURGE_BATCH: Final = 1000


class PostgresAccessFeed:
    """`AccessFeed` in the tables `access_changes` and `access_feed`; calls `wake` after every change.

    With an `outbox`, every change is also published as an event.
    """

    def __init__(
        self, database: Database, wake: Callable[[], None], outbox: Outbox | None = None
    ) -> None:
        self._database = database
        self._wake = wake
        self._outbox = outbox

    @asynccontextmanager
    async def publishing(self, changes: Sequence[AccessChange]) -> AsyncIterator[None]:
        if not changes:
            yield
            return
        change_id, stored = uuid.uuid4().hex, [asdict(change) for change in changes]
        begun = insert(access_changes).values(id=change_id, changes=stored)
        await self._database.execute(begun)
        yield
        await self._publish(publish_statement(change_id, stored))

    async def since(self, position: int | None) -> AccessChanges:
        after = -1 if position is None else position
        found = await self._database.execute(_read_statement(after, MAX_READ + 1))
        rows: list[Any] = list(found)
        last, purged, _ = rows[0]
        # A position after the last one: the database was restored.
        if not purged <= after <= last or len(rows) > MAX_READ:
            return AccessChanges(last, [ANY_ACCESS_CHANGE])
        stored: list[Any] = [each for row in rows if row[2] for each in row[2]]
        return AccessChanges(last, [AccessChange(**each) for each in stored])

    async def publish_abandoned(self) -> None:
        """Publish removals whose process died, or got no answer from OpenFGA."""
        late = (
            select(access_changes.c.id)
            .where(access_changes.c.position.is_(None), _is_older(ABANDONED_SECONDS))
            .limit(PUBLISH_BATCH)
            .cte("late")
        )
        position = _next_position(select(late).exists())
        published = update(access_changes).where(access_changes.c.id.in_(select(late.c.id)))
        values = {"position": select(position.c.position).scalar_subquery(), "at": func.now()}
        await self._publish(published.values(values))

    async def _publish(self, published: Any) -> None:
        async with self._database.transaction() as transaction:
            rows = (await transaction.execute(published.returning(access_changes))).all()
            if self._outbox is not None:
                for row in rows:
                    removed = [RemovedAccess(**change) for change in row.changes]
                    event = AccessChanged(position=row.position, changes=removed)
                    await self._outbox.publish(transaction, ACCESS_CHANGED, event)
        if rows:
            self._wake()

    async def purge(self) -> None:
        """Delete changes that every reader has seen, or is told of by `ANY_ACCESS_CHANGE`."""
        while await self._purge_batch() == PURGE_BATCH:
            pass

    async def _purge_batch(self) -> int:
        oldest = (
            select(access_changes.c.id)
            .where(access_changes.c.position.is_not(None), _is_older(KEPT_SECONDS))
            .order_by(access_changes.c.position)
            .limit(PURGE_BATCH)
        )
        # The age once more: a row that is published again concurrently must stay.
        purged = (
            delete(access_changes)
            .where(_is_older(KEPT_SECONDS), access_changes.c.id.in_(oldest))
            .returning(access_changes.c.position)
            .cte("purged")
        )
        last = select(func.max(purged.c.position)).scalar_subquery()
        count = select(func.count()).select_from(purged).scalar_subquery()
        statement = update(access_feed).values(purged=func.greatest(access_feed.c.purged, last))
        return (await self._database.execute(statement.returning(count))).scalar_one()


def publish_statement(change_id: str, changes: Sequence[dict[str, Any]]) -> Any:
    """Give a change its position. A change that was published as abandoned, or purged, gets a new one."""
    position = _next_position(true())
    row = select(literal(change_id), literal(changes, JSONB), position.c.position)
    published = insert(access_changes).from_select(["id", "changes", "position"], row)
    return published.on_conflict_do_update(
        index_elements=["id"], set_={"position": published.excluded.position, "at": func.now()}
    )


def _next_position(condition: Any) -> Any:
    advanced = update(access_feed).where(condition).values(position=access_feed.c.position + 1)
    return advanced.returning(access_feed.c.position).cte("next")


def _read_statement(after: int, limit: int) -> Any:
    """One statement, so one snapshot: no change up to the position that it reads is missing."""
    found = (
        select(access_changes.c.position, access_changes.c.changes)
        .where(access_changes.c.position > after)
        .order_by(access_changes.c.position)
        .limit(limit)
        .subquery("found")
    )
    columns = access_feed.c.position, access_feed.c.purged, found.c.changes
    joined = select(*columns).select_from(access_feed.outerjoin(found, true()))
    return joined.order_by(found.c.position)


def _is_older(seconds: float) -> Any:
    return access_changes.c.at < func.now() - timedelta(seconds=seconds)
