"""Idempotency records, by draft-ietf-httpapi-idempotency-key-header: one effect per key, per caller, for 24 hours.

The first call with a key holds a lease while it runs. A repeat gets the stored reply; a repeat while the first
still runs is refused (ABORTED 409, Retry-After); the same key with another body is IDEMPOTENCY_KEY_REUSED (422).
A reply is stored unless it is a server failure (5xx) or asks to try again; then the key is free again. A process
that dies leaves a lease which ends by itself, and the repeat runs again: effects below must know their own ids.
"""

import hashlib
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import TextClause, text

from services.kit.db import Database
from services.kit.errors import ErrorCode, RpcError

LEASE: Final = timedelta(seconds=20)
"""How long a call owns its key; past that a repeat may run beside it, and meets the same ids below."""
KEPT: Final = timedelta(hours=24)
MAX_KEY_LENGTH: Final = 255

RESERVE: Final[TextClause] = text(
    """
    INSERT INTO events.idempotency AS r (caller, operation, key, fingerprint, owner, lease_until)
    VALUES (:caller, :operation, :key, :fingerprint, :owner, now() + make_interval(secs => :lease))
    ON CONFLICT (caller, operation, key) DO UPDATE SET
        owner = CASE WHEN r.created_at < now() - make_interval(secs => :kept)
            OR (r.status IS NULL AND r.lease_until < now() AND r.fingerprint = excluded.fingerprint)
            THEN excluded.owner ELSE r.owner END,
        status = CASE WHEN r.created_at < now() - make_interval(secs => :kept) THEN NULL ELSE r.status END,
        fingerprint = CASE WHEN r.created_at < now() - make_interval(secs => :kept)
            THEN excluded.fingerprint ELSE r.fingerprint END,
        lease_until = CASE WHEN r.created_at < now() - make_interval(secs => :kept)
            OR (r.status IS NULL AND r.lease_until < now() AND r.fingerprint = excluded.fingerprint)
            THEN excluded.lease_until ELSE r.lease_until END,
        created_at = CASE WHEN r.created_at < now() - make_interval(secs => :kept)
            THEN now() ELSE r.created_at END
    RETURNING owner = :owner, fingerprint = :fingerprint, status, body,
        CEIL(EXTRACT(EPOCH FROM lease_until - now()))
    """
)
COMPLETE: Final[TextClause] = text(
    """
    UPDATE events.idempotency SET status = :status, body = :body
    WHERE caller = :caller AND operation = :operation AND key = :key AND owner = :owner
    """
)
RELEASE: Final[TextClause] = text(
    """
    DELETE FROM events.idempotency
    WHERE caller = :caller AND operation = :operation AND key = :key AND owner = :owner AND status IS NULL
    """
)
PURGE: Final[TextClause] = text(
    "DELETE FROM events.idempotency WHERE created_at < now() - make_interval(secs => :kept)"
)


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A caller's key for one operation."""

    caller: str
    operation: str
    key: str

    def derive(self, kind: str) -> str:
        """An id that every repeat of the call finds again: 32 hexadecimal digits."""
        source = "\0".join((kind, self.caller, self.operation, self.key))
        return hashlib.sha256(source.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class StoredReply:
    """A reply as it went out: HTTP status and body."""

    status: int
    body: bytes


class IdempotencyRecords:
    """Runs an operation once per key."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(
        self, key: IdempotencyKey, body: bytes, operation: Callable[[], Awaitable[StoredReply]]
    ) -> tuple[StoredReply, bool]:
        """The reply, and whether it is a replay.

        Raises:
            RpcError: ABORTED while another call with this key runs; IDEMPOTENCY_KEY_REUSED for another body.
        """
        scope: dict[str, Any] = {"caller": key.caller, "operation": key.operation, "key": key.key}
        held = {**scope, "owner": uuid.uuid4()}
        replay = await self._reserve(held, hashlib.sha256(body).digest())
        if replay is not None:
            return replay, True
        try:
            reply = await operation()
        except BaseException:
            await self._database.execute(RELEASE, held)
            raise
        if is_final(reply.status):
            await self._database.execute(
                COMPLETE, {**held, "status": reply.status, "body": reply.body}
            )
        else:
            await self._database.execute(RELEASE, held)
        return reply, False

    async def purge(self) -> None:
        """Delete records that are past their time."""
        await self._database.execute(PURGE, {"kept": KEPT.total_seconds()})

    async def _reserve(self, held: dict[str, Any], fingerprint: bytes) -> StoredReply | None:
        found = await self._database.execute(
            RESERVE,
            {
                **held,
                "fingerprint": fingerprint,
                "lease": LEASE.total_seconds(),
                "kept": KEPT.total_seconds(),
            },
        )
        row: Any = found.one()
        mine, same_body, status, body, lease_left = row
        if not same_body:
            raise RpcError(
                ErrorCode.IDEMPOTENCY_KEY_REUSED,
                "This Idempotency-Key was used with another request body.",
            )
        if mine:
            return None
        if status is None:
            raise RpcError(
                ErrorCode.ABORTED,
                "A call with this Idempotency-Key is still running.",
                retry_after=timedelta(seconds=max(1, min(2, int(lease_left)))),
            )
        return StoredReply(status, body)


def is_final(status: int) -> bool:
    """Whether a reply is worth storing: not a server failure, and not one that asks to try again."""
    return status < 500 and status not in (409, 429)
