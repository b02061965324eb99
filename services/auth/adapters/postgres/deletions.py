"""Receipts of erased accounts."""

import json
from collections.abc import Sequence
from typing import Any, Final

from services.contracts.auth.accounts import AccountDeletion, DeleteAccountInput, ErasedPart
from services.kit.errors import not_found
from services.kit.storage.db import Database

_COLUMNS: Final = "id, status, parts, requested_at, completed_at"

# $1 id, $2 user
BEGIN: Final = f"""
    INSERT INTO auth.deletions (id, user_id) VALUES ($1, $2)
    ON CONFLICT (user_id) DO UPDATE SET user_id = excluded.user_id
    RETURNING {_COLUMNS}
"""
READ: Final = f"SELECT {_COLUMNS} FROM auth.deletions WHERE id = $1"
# $1 id, $2 app, $3 what was removed
ADD_PART: Final = f"""
    UPDATE auth.deletions
    SET parts = CASE WHEN parts ? $2 THEN parts ELSE parts || jsonb_build_object(
        $2::text, jsonb_build_object('removed', $3::text::jsonb, 'erasedAt', now())) END
    WHERE id = $1 RETURNING {_COLUMNS}
"""
COMPLETE: Final = f"""
    UPDATE auth.deletions
    SET status = 'COMPLETED', user_id = NULL, completed_at = COALESCE(completed_at, now())
    WHERE id = $1 RETURNING {_COLUMNS}
"""
FINISHED: Final = """
    SELECT id FROM auth.deletions
    WHERE completed_at IS NOT NULL AND workflow_kept ORDER BY requested_at LIMIT 100
"""
FORGET_WORKFLOW: Final = "UPDATE auth.deletions SET workflow_kept = false WHERE id = $1"
UNFINISHED: Final = """
    SELECT id, user_id FROM auth.deletions WHERE user_id IS NOT NULL ORDER BY requested_at LIMIT 100
"""


class PostgresDeletions:
    """`Deletions` in the schema `auth`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, user_id: str, deletion_id: str) -> AccountDeletion:
        """A receipt for this user."""
        return _receipt(await self._database.fetch_one(BEGIN, deletion_id, user_id))

    async def read(self, deletion_id: str) -> AccountDeletion | None:
        """A receipt."""
        row = await self._database.fetch_one(READ, deletion_id)
        return _receipt(row) if row else None

    async def add_part(
        self, deletion_id: str, app: str, removed: dict[str, int]
    ) -> AccountDeletion:
        """Write what an app removed, once per app."""
        return await self._change(ADD_PART, deletion_id, app, json.dumps(removed))

    async def complete(self, deletion_id: str) -> AccountDeletion:
        """Complete it, and take the user's name off."""
        return await self._change(COMPLETE, deletion_id)

    async def finished(self) -> Sequence[str]:
        """Those whose workflow still has its history."""
        return [row["id"] for row in await self._database.fetch(FINISHED)]

    async def forget_workflow(self, deletion_id: str) -> None:
        """The workflow's history is gone."""
        await self._database.fetch(FORGET_WORKFLOW, deletion_id)

    async def unfinished(self) -> Sequence[DeleteAccountInput]:
        """What is being worked on."""
        rows = await self._database.fetch(UNFINISHED)
        return [DeleteAccountInput(deletion_id=row["id"], user_id=row["user_id"]) for row in rows]

    async def _change(self, statement: str, *arguments: Any) -> AccountDeletion:
        row = await self._database.fetch_one(statement, *arguments)
        if row is None:
            raise not_found("deletion")
        return _receipt(row)


def _receipt(row: Any) -> AccountDeletion:
    parts: dict[str, Any] = json.loads(row["parts"])
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
