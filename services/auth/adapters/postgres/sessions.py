"""Sessions and revocations in Postgres."""

from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import DateTime, delete, func, insert, literal, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from services.auth.domain.sessions import Session, longest_token_life
from services.auth.tables import revocations, sessions
from services.contracts.auth.tokens import Revocation
from services.kit.clock import Clock
from services.kit.storage.db import Database, Transaction

MAX_CLOCK_ERROR: Final = timedelta(minutes=15)
"""How far clocks of replicas may be off, both ways, until a revoked token could be accepted again."""
_SESSION_COLUMNS: Final[Any] = {"sid": sessions.c.sid, "sub": sessions.c.user_id}


class PostgresRevocations:
    """`Revocations` in the table `revocations`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def revoke(
        self, claim: str, value: str, *, transaction: Transaction | None = None
    ) -> None:
        if transaction is None:
            async with self._database.transaction() as own:
                await self.revoke(claim, value, transaction=own)
            return
        now = self._clock()
        ends = now + longest_token_life(claim) + MAX_CLOCK_ERROR
        # This clock may be behind that of the replica which issued the tokens.
        until = func.greatest(literal(now, DateTime(timezone=True)), func.now())
        row = upsert(revocations).values(
            claim=claim, value=value, issued_until=until, expires_at=ends
        )
        later = {
            name: func.greatest(revocations.c[name], row.excluded[name])
            for name in ("issued_until", "expires_at")
        }
        await transaction.execute(
            row.on_conflict_do_update(index_elements=["claim", "value"], set_=later)
        )
        if claim in _SESSION_COLUMNS:
            ended = update(sessions).where(
                _SESSION_COLUMNS[claim] == value, sessions.c.ended_at.is_(None)
            )
            await transaction.execute(ended.values(ended_at=now))

    async def all(self) -> list[Revocation]:
        query = select(revocations).where(revocations.c.expires_at > self._clock())
        rows = await self._database.execute(query)
        return [Revocation.model_validate(dict(row)) for row in rows.mappings()]

    async def purge(self) -> None:
        over = revocations.c.expires_at <= self._clock()
        await self._database.execute(delete(revocations).where(over))


class PostgresSessions:
    """`Sessions` in the table `sessions`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, transaction: Transaction, session: Session) -> None:
        await transaction.execute(insert(sessions).values(session.model_dump()))

    async def get(self, sid: str) -> Session | None:
        return _session(await self._database.execute(_by(sid)))

    async def lock(self, transaction: Transaction, sid: str) -> Session | None:
        return _session(await transaction.execute(_by(sid).with_for_update()))

    async def rotate(self, transaction: Transaction, session: Session) -> None:
        digests = session.model_dump(include={"digest", "previous_digest", "rotated_at"})
        changed = update(sessions).where(sessions.c.sid == session.sid).values(digests)
        await transaction.execute(changed)

    async def purge(self, at: datetime) -> None:
        await self._database.execute(delete(sessions).where(sessions.c.expires_at <= at))


def _by(sid: str) -> Any:
    return select(sessions).where(sessions.c.sid == sid)


def _session(rows: Any) -> Session | None:
    row = rows.mappings().first()
    return Session.model_validate(dict(row)) if row else None
