"""Shares and links in Postgres, with their events and their facts in the same transaction."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, and_, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.auth.adapters.postgres.outbox import PostgresOutbox
from services.auth.domain.sharing import StoredLink
from services.auth.ports.audit import AuditLog
from services.auth.ports.sharing import SharingEvent
from services.auth.tables import share_links
from services.contracts.auth.audit import AuditAction
from services.contracts.auth.authorization import RelationTuple
from services.kit.storage.db import Database


class PostgresSharing:
    """`Sharing` in the schema `auth`."""

    def __init__(self, database: Database, outbox: PostgresOutbox, audit: AuditLog) -> None:
        self._database = database
        self._outbox = outbox
        self._audit = audit

    async def change(
        self, event: SharingEvent, writes: Sequence[RelationTuple], deletes: Sequence[RelationTuple]
    ) -> None:
        """One transaction, then the facts."""
        async with self._database.transaction() as connection:
            await self._outbox.add(connection, writes, deletes)
            await self._record(event, connection)
        await self._outbox.deliver()

    async def create(self, event: SharingEvent, link: StoredLink, digest: bytes) -> None:
        """The link with its role. Made, it is handed out even where its role comes a moment later."""
        async with self._database.transaction() as connection:
            await connection.execute(
                insert(share_links).values({**link.model_dump(), "digest": digest})
            )
            await self._outbox.add(connection, writes=[link.grant])
            await self._record(event, connection)
        await self._outbox.relay()

    async def end(self, event: SharingEvent, link_id: str, at: datetime) -> bool:
        """End it; a repeated call delivers what the first one could not."""
        async with self._database.transaction() as connection:
            ended = await self._end(connection, share_links.c.link_id == link_id, event.object, at)
            if ended:
                await self._record(event, connection)
        await self._outbox.deliver()
        return link_id in {link.link_id for link in await self.links(event.object)}

    async def end_expired(self, now: datetime) -> None:
        """End what is over."""
        async with self._database.transaction() as connection:
            ended = await self._end(connection, share_links.c.expires_at <= now, None, now)
        if ended:
            await self._outbox.relay()

    async def find(self, digest: bytes) -> StoredLink | None:
        """By the keyed hash."""
        found = await self._select(share_links.c.digest == digest)
        return found[0] if found else None

    async def links(self, target: str) -> list[StoredLink]:
        """By object, oldest first."""
        return await self._select(share_links.c.object == target)

    async def forget(self, target: str) -> list[str]:
        """The rows, with what is kept of the tokens."""
        gone = delete(share_links).where(share_links.c.object == target)
        rows = await self._database.execute(gone.returning(share_links.c.link_id))
        return list(rows.scalars())

    async def _end(
        self,
        connection: AsyncConnection,
        which: ColumnElement[bool],
        target: str | None,
        at: datetime,
    ) -> list[StoredLink]:
        chosen = and_(which, share_links.c.ended_at.is_(None))
        if target is not None:
            chosen = and_(chosen, share_links.c.object == target)
        ending = update(share_links).where(chosen).values(ended_at=at).returning(share_links)
        rows = (await connection.execute(ending)).mappings()
        ended = [StoredLink.model_validate(dict(row)) for row in rows]
        for link in ended:
            await self._outbox.add(connection, deletes=[link.grant])
        return ended

    async def _select(self, which: ColumnElement[bool]) -> list[StoredLink]:
        wanted = select(share_links).where(which)
        rows = await self._database.execute(wanted.order_by(share_links.c.created_at))
        return [StoredLink.model_validate(dict(row)) for row in rows.mappings()]

    async def _record(self, event: SharingEvent, connection: AsyncConnection) -> None:
        await self._audit.record(
            AuditAction.SHARING_CHANGED,
            actor=event.actor,
            owner=event.owner,
            object=event.object,
            key_id=event.key_id,
            details=event.details,
            connection=connection,
        )
