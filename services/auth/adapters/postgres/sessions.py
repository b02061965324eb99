"""Sessions and revocations in Postgres."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.auth.domain.keys import log_of
from services.auth.domain.sessions import Session, TokenUse, life_of
from services.auth.ports.audit import AuditLog
from services.auth.tables import revocations, sessions
from services.contracts.auth.audit import AuditAction
from services.contracts.auth.tokens import Revocation
from services.kit.clock import Clock
from services.kit.storage.db import Database


class PostgresRevocations:
    """`Revocations` in the schema `auth`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def revoke(
        self, claim: str, value: str, *, connection: AsyncConnection | None = None
    ) -> None:
        """End tokens and sessions, in the caller's transaction or in one of its own."""
        if connection is None:
            async with self._database.transaction() as own:
                await self.revoke(claim, value, connection=own)
            return
        now = self._clock()
        row = upsert(revocations).values(
            claim=claim, value=value, issued_until=now, expires_at=now + life_of(claim)
        )
        later = {
            name: func.greatest(revocations.c[name], row.excluded[name])
            for name in ("issued_until", "expires_at")
        }
        await connection.execute(
            row.on_conflict_do_update(index_elements=["claim", "value"], set_=later)
        )
        if claim in _SESSION_COLUMNS:
            ended = update(sessions).where(
                _SESSION_COLUMNS[claim] == value, sessions.c.ended_at.is_(None)
            )
            await connection.execute(ended.values(ended_at=now))

    async def all(self) -> list[Revocation]:
        """Those that still matter."""
        query = select(revocations).where(revocations.c.expires_at > self._clock())
        rows = await self._database.execute(query)
        return [Revocation.model_validate(dict(row)) for row in rows.mappings()]


_SESSION_COLUMNS: Any = {"sid": sessions.c.sid, "sub": sessions.c.user_id}


class PostgresSessions:
    """`Sessions` in the schema `auth`."""

    def __init__(
        self, database: Database, revoked: PostgresRevocations, audit: AuditLog, clock: Clock
    ) -> None:
        self._database = database
        self._revocations = revoked
        self._audit = audit
        self._clock = clock

    async def begin(self, session: Session) -> None:
        """Keep a new session."""
        async with self._database.transaction() as connection:
            await connection.execute(insert(sessions).values(session.model_dump()))
            await self._record(AuditAction.TOKEN_EXCHANGED, session, connection)

    async def get(self, sid: str) -> Session | None:
        """A session."""
        row = (await self._database.execute(_by(sid))).mappings().first()
        return Session.model_validate(dict(row)) if row else None

    async def refresh(
        self, sid: str, decide: Callable[[Session], tuple[TokenUse, Session]]
    ) -> TokenUse | None:
        """Decide and change in one transaction, under a lock on the row."""
        async with self._database.transaction() as connection:
            row = (await connection.execute(_by(sid).with_for_update())).mappings().first()
            if row is None:
                return None
            found = Session.model_validate(dict(row))
            use, session = decide(found)
            if use is TokenUse.GOOD:
                changed = session.model_dump(include={"digest", "previous_digest", "rotated_at"})
                await connection.execute(
                    update(sessions).where(sessions.c.sid == sid).values(changed)
                )
            elif use is TokenUse.REUSED:
                await self._revocations.revoke("sid", sid, connection=connection)
                await self._record(AuditAction.TOKEN_REUSED, found, connection)
            return use

    async def end(self, sid: str) -> None:
        """End a session; one that is over already is no error."""
        async with self._database.transaction() as connection:
            row = (await connection.execute(_by(sid).with_for_update())).mappings().first()
            if row is None or row["ended_at"] is not None:
                return
            await self._revocations.revoke("sid", sid, connection=connection)
            session = Session.model_validate(dict(row))
            await self._record(AuditAction.TOKEN_REVOKED, session, connection)

    async def purge(self) -> None:
        """Forget what is over."""
        now = self._clock()
        await self._database.execute(delete(sessions).where(sessions.c.expires_at <= now))
        await self._database.execute(delete(revocations).where(revocations.c.expires_at <= now))

    async def _record(
        self, action: AuditAction, session: Session, connection: AsyncConnection
    ) -> None:
        await self._audit.record(
            action,
            actor=session.user_id,
            owner=log_of(session.user_id),
            details={"session": session.sid},
            connection=connection,
        )


def _by(sid: str) -> Any:
    return select(sessions).where(sessions.c.sid == sid)
