"""What auth's tables have of a user: keys, sessions and the log."""

from typing import Final

from services.auth.domain.keys import log_of
from services.auth.ports.outbox import Outbox
from services.auth.ports.relations import Relations, make_untrue
from services.auth.ports.sessions import Revocations
from services.kit.storage.db import Database

ERASED: Final = "erased"
"""Who did it, in the logs of others, once the one who did it is gone."""

REVOKE_KEYS: Final = """
    UPDATE auth.api_keys SET revoked_at = now(), previous_start = NULL, previous_digest = NULL
    WHERE user_id = $1 AND organization_id IS NULL AND revoked_at IS NULL
"""
KEYS: Final = "SELECT key_id FROM auth.api_keys WHERE user_id = $1 AND organization_id IS NULL"
COUNT: Final = """
    SELECT
        (SELECT count(*) FROM auth.api_keys WHERE user_id = $1 AND organization_id IS NULL),
        (SELECT count(*) FROM auth.sessions WHERE user_id = $1),
        (SELECT count(*) FROM auth.audit_events WHERE owner = $2)
"""
FORGET_KEY: Final = """
    WITH charges AS (DELETE FROM auth.api_key_charges WHERE key_id = $1),
        days AS (DELETE FROM auth.api_key_days WHERE key_id = $1)
    DELETE FROM auth.api_keys WHERE key_id = $1
"""
FORGET_SESSIONS: Final = "DELETE FROM auth.sessions WHERE user_id = $1"
FORGET_LOG: Final = "DELETE FROM auth.audit_events WHERE owner = $1"
UNNAME: Final = """
    UPDATE auth.audit_events
    SET actor = CASE WHEN actor = $1 THEN $2 ELSE actor END,
        details = (
            SELECT COALESCE(jsonb_object_agg(
                key, CASE value
                    WHEN to_jsonb($1::text) THEN to_jsonb($2::text)
                    WHEN to_jsonb('user:' || $1::text) THEN to_jsonb('user:' || $2::text)
                    ELSE value END
            ), '{}') FROM jsonb_each(details)
        )
    WHERE actor = $1 OR details::text LIKE '%' || $1 || '%'
"""


class PostgresUserData:
    """`UserData` and `Credentials` in the schema `auth`; the facts about keys go with the keys."""

    def __init__(
        self, database: Database, relations: Relations, outbox: Outbox, revocations: Revocations
    ) -> None:
        self._database = database
        self._relations = relations
        self._outbox = outbox
        self._revocations = revocations

    async def revoke_user(self, user_id: str) -> None:
        """End keys, sessions and tokens."""
        await self._revocations.revoke("sub", user_id)
        await self._database.fetch(REVOKE_KEYS, user_id)

    async def count(self, user_id: str) -> dict[str, int]:
        """How many of each kind."""
        row = await self._database.fetch_one(COUNT, user_id, log_of(user_id))
        return dict(zip(("apiKeys", "sessions", "auditEvents"), row, strict=True))

    async def erase(self, user_id: str) -> None:
        """Remove them. The revocation of the user's tokens stays until the last of them is over."""
        await self._outbox.deliver()  # what is on its way to the facts would come back after
        for row in await self._database.fetch(KEYS, user_id):
            key_id: str = row["key_id"]
            await make_untrue(self._relations, await self._relations.read(f"api_key:{key_id}"))
            await self._database.fetch(FORGET_KEY, key_id)
        await self._database.fetch(FORGET_SESSIONS, user_id)
        await self._database.fetch(FORGET_LOG, log_of(user_id))
        await self._database.fetch(UNNAME, user_id, ERASED)


class UserFacts:
    """`UserData`: what the user was given by others."""

    def __init__(self, relations: Relations) -> None:
        self._relations = relations

    async def count(self, user_id: str) -> dict[str, int]:
        """How many facts name the user."""
        return {"facts": len(await self._relations.read_subject(f"user:{user_id}"))}

    async def erase(self, user_id: str) -> None:
        """Make them untrue."""
        await make_untrue(self._relations, await self._relations.read_subject(f"user:{user_id}"))
