"""Share links in Postgres."""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, delete, insert, select, update

from services.auth.domain.sharing import StoredLink
from services.auth.tables import share_links
from services.kit.storage.db import Database, Transaction


class PostgresShareLinks:
    """`ShareLinks` in the table `share_links`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, transaction: Transaction, link: StoredLink, digest: bytes) -> None:
        values = {**link.model_dump(), "digest": digest}
        await transaction.execute(insert(share_links).values(values))

    async def end(
        self, transaction: Transaction, target: str, link_id: str, at: datetime
    ) -> list[StoredLink]:
        named = share_links.c.link_id == link_id, share_links.c.object == target
        return await _end(transaction, at, *named)

    async def end_expired(self, transaction: Transaction, at: datetime) -> list[StoredLink]:
        return await _end(transaction, at, share_links.c.expires_at <= at)

    async def find(self, digest: bytes) -> StoredLink | None:
        found = await self._select(share_links.c.digest == digest)
        return found[0] if found else None

    async def of_object(self, target: str) -> list[StoredLink]:
        return await self._select(share_links.c.object == target)

    async def forget(self, target: str) -> None:
        await self._database.execute(delete(share_links).where(share_links.c.object == target))

    async def _select(self, condition: ColumnElement[bool]) -> list[StoredLink]:
        found = select(share_links).where(condition).order_by(share_links.c.created_at)
        return _links(await self._database.execute(found))


async def _end(
    transaction: Transaction, at: datetime, *conditions: ColumnElement[bool]
) -> list[StoredLink]:
    active = update(share_links).where(*conditions, share_links.c.ended_at.is_(None))
    return _links(await transaction.execute(active.values(ended_at=at).returning(share_links)))


def _links(rows: Any) -> list[StoredLink]:
    return [StoredLink.model_validate(dict(row)) for row in rows.mappings()]
