"""Receipts of account deletions in Postgres."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import case, func, literal, or_, select, update
from sqlalchemy.dialects.postgresql import JSONB, insert

from services.auth.tables import deletions
from services.contracts.auth.accounts import (
    AccountDeletion,
    DeleteAccountInput,
    DeletionStatus,
    ErasedPart,
)
from services.kit.storage.db import Database, Transaction

PAGE: Final = 100


class PostgresDeletionReceipts:
    """`DeletionReceipts` in the table `deletions`."""

    def __init__(self, database: Database, digest: Callable[[str], bytes]) -> None:
        self._database = database
        self._digest = digest

    async def begin(self, user_id: str, deletion_id: str) -> AccountDeletion:
        digest = self._digest(user_id)
        new = insert(deletions).values(id=deletion_id, user_id=user_id, user_digest=digest)
        same_user = {"user_id": new.excluded.user_id}  # an update, so that RETURNING has the row
        begun = new.on_conflict_do_update(index_elements=["user_id"], set_=same_user)
        rows = await self._database.execute(begun.returning(deletions))
        return _receipt(rows.mappings().one())

    async def read(self, deletion_id: str) -> AccountDeletion | None:
        return await self._one(select(deletions).where(deletions.c.id == deletion_id))

    async def add_part(
        self, deletion_id: str, app: str, removed: dict[str, int]
    ) -> AccountDeletion | None:
        part = func.jsonb_build_object(
            "removed", literal(removed, JSONB), "erasedAt", func.now(), type_=JSONB
        )
        parts = deletions.c.parts
        added = parts.concat(func.jsonb_build_object(app, part, type_=JSONB))
        return await self._change(deletion_id, parts=case((parts.has_key(app), parts), else_=added))

    async def complete(self, deletion_id: str) -> AccountDeletion | None:
        return await self._change(
            deletion_id,
            status=DeletionStatus.COMPLETED,
            user_id=None,
            completed_at=func.coalesce(deletions.c.completed_at, func.now()),
        )

    async def covers(self, transaction: Transaction, user_id: str, at: datetime) -> bool:
        later = or_(deletions.c.completed_at.is_(None), deletions.c.completed_at >= at)
        same_user = deletions.c.user_digest == self._digest(user_id)
        found = await transaction.execute(select(deletions.c.id).where(same_user, later).limit(1))
        return found.first() is not None

    async def unfinished(self) -> Sequence[DeleteAccountInput]:
        rows = await self._page(deletions.c.user_id.is_not(None))
        return [DeleteAccountInput(deletion_id=row.id, user_id=row.user_id) for row in rows]

    async def finished(self) -> Sequence[str]:
        rows = await self._page(deletions.c.completed_at.is_not(None), deletions.c.workflow_kept)
        return [row.id for row in rows]

    async def forget_workflow(self, deletion_id: str) -> None:
        await self._change(deletion_id, workflow_kept=False)

    async def _page(self, *conditions: Any) -> Any:
        found = select(deletions).where(*conditions).order_by(deletions.c.requested_at)
        return await self._database.execute(found.limit(PAGE))

    async def _change(self, deletion_id: str, **values: Any) -> AccountDeletion | None:
        changed = update(deletions).where(deletions.c.id == deletion_id).values(values)
        return await self._one(changed.returning(deletions))

    async def _one(self, statement: Any) -> AccountDeletion | None:
        row = (await self._database.execute(statement)).mappings().first()
        return _receipt(row) if row else None


def _receipt(row: Any) -> AccountDeletion:
    parts: dict[str, Any] = row["parts"]
    return AccountDeletion(
        deletion_id=row["id"],
        status=row["status"],
        parts=[
            ErasedPart(app=app, removed=part["removed"], erased_at=part["erasedAt"])
            for app, part in sorted(parts.items(), key=lambda item: item[1]["erasedAt"])
        ],
        requested_at=row["requested_at"],
        completed_at=row["completed_at"],
    )
