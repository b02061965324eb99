"""Idempotency records (draft-ietf-httpapi-idempotency-key-header): one effect per caller and key for 24 hours.

The first call with a key holds a lease while it runs. A repeat gets the stored reply; during the first call it gets
ABORTED (409, Retry-After); with another body IDEMPOTENCY_KEY_REUSED (422). A 5xx or retryable reply is not stored and
frees the key. If the process dies, the lease expires and a repeat runs again, so effects must be idempotent by
themselves.
"""

import hashlib
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from services.kit.background import every
from services.kit.errors import ErrorCode, RpcError

if TYPE_CHECKING:  # an app without a database loads no driver
    from services.kit.storage.db import Database

LEASE: Final = timedelta(seconds=8)
"""How long a key stays locked after its process died or froze."""
RENEWAL_SECONDS: Final = 2.5
"""Interval of lease renewals by a running call."""
RETENTION: Final = timedelta(hours=24)
MAX_KEY_LENGTH: Final = 255

# $1 caller, $2 operation, $3 key, $4 fingerprint, $5 owner, $6 lease in seconds, $7 retention in seconds
RESERVE: Final = """
    INSERT INTO events.idempotency AS r (caller, operation, key, fingerprint, owner, lease_until)
    VALUES ($1, $2, $3, $4, $5, now() + make_interval(secs => $6::double precision))
    ON CONFLICT (caller, operation, key) DO UPDATE
    SET fingerprint = excluded.fingerprint, owner = excluded.owner,
        lease_until = excluded.lease_until, status = NULL, body = NULL, created_at = now()
    WHERE r.created_at < now() - make_interval(secs => $7::double precision)
        OR (r.status IS NULL AND r.lease_until < now() AND r.fingerprint = excluded.fingerprint)
    RETURNING owner
"""
FIND: Final = """
    SELECT fingerprint, status, body FROM events.idempotency
    WHERE caller = $1 AND operation = $2 AND key = $3
"""
COMPLETE: Final = """
    UPDATE events.idempotency SET status = $5, body = $6
    WHERE caller = $1 AND operation = $2 AND key = $3 AND owner = $4
"""
RELEASE: Final = """
    DELETE FROM events.idempotency
    WHERE caller = $1 AND operation = $2 AND key = $3 AND owner = $4 AND status IS NULL
"""
RENEW: Final = """
    UPDATE events.idempotency SET lease_until = now() + make_interval(secs => $5::double precision)
    WHERE caller = $1 AND operation = $2 AND key = $3 AND owner = $4 AND status IS NULL
"""
FORGET: Final = "DELETE FROM events.idempotency WHERE caller = $1"
# $1 retention in seconds, $2 limit
PURGE: Final = """
    DELETE FROM events.idempotency WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM events.idempotency
        WHERE created_at < now() - make_interval(secs => $1::double precision)
        ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED
    ))
    RETURNING 1
"""


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """Identifies repeats of a call: by the client's `Idempotency-Key` (`explicit`), else by the edge's call id.

    The edge's call id only detects that a sidecar delivered one call twice.
    """

    caller: str
    operation: str
    key: str
    explicit: bool = True

    def derive(self, kind: str, *within: str) -> str:
        """An id that is equal for every repeat of the call: 32 hexadecimal digits, distinct by `kind` and `within`."""
        source = "\0".join((kind, self.caller, self.operation, self.key, *within))
        return hashlib.sha256(source.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class StoredReply:
    """A stored response: HTTP status and body."""

    status: int
    body: bytes


class IdempotencyRecords:
    """Runs an operation once per key."""

    def __init__(self, database: "Database") -> None:
        self._database = database

    async def run(
        self, key: IdempotencyKey, body: bytes, operation: Callable[[], Awaitable[StoredReply]]
    ) -> tuple[StoredReply, bool]:
        """The reply, and whether it is a replay of the stored one.

        Raises:
            RpcError: ABORTED while another call with this key runs; IDEMPOTENCY_KEY_REUSED.
        """
        scope = (key.caller, key.operation, key.key)
        owner = uuid.uuid4()
        replay = await self._reserve(scope, owner, hashlib.sha256(body).digest())
        if replay is not None:
            return replay, True
        lease = (*scope, owner, LEASE.total_seconds())
        renewing = every(
            RENEWAL_SECONDS, lambda: self._database.fetch(RENEW, *lease), "idempotency lease"
        )
        try:
            reply = await operation()
        except BaseException:
            await self._database.fetch(RELEASE, *scope, owner)
            raise
        finally:
            renewing.cancel()
        if is_final(reply.status):
            await self._database.fetch(COMPLETE, *scope, owner, reply.status, reply.body)
        else:
            await self._database.fetch(RELEASE, *scope, owner)
        return reply, False

    async def purge(self, limit: int) -> int:
        """Delete up to `limit` expired records and return their number; rows locked by other replicas are skipped."""
        return len(await self._database.fetch(PURGE, RETENTION.total_seconds(), limit))

    async def forget(self, caller: str) -> None:
        """Delete every record of a caller."""
        await self._database.fetch(FORGET, caller)

    async def _reserve(
        self, scope: tuple[str, str, str], owner: uuid.UUID, fingerprint: bytes
    ) -> StoredReply | None:
        times = (LEASE.total_seconds(), RETENTION.total_seconds())
        reserved = await self._database.fetch_one(RESERVE, *scope, fingerprint, owner, *times)
        if reserved is not None:
            return None
        found = await self._database.fetch_one(FIND, *scope)
        if found is not None and found["fingerprint"] != fingerprint:
            raise RpcError(
                ErrorCode.IDEMPOTENCY_KEY_REUSED,
                "This Idempotency-Key was used with another request body.",
            )
        if found is None or found["status"] is None:
            raise RpcError(
                ErrorCode.ABORTED,
                "A call with this Idempotency-Key is still running.",
                retry_after=timedelta(seconds=1),
            )
        return StoredReply(found["status"], found["body"])


def is_final(status: int) -> bool:
    """Whether a reply is stored: neither a server error nor retryable."""
    return status < 500 and status not in (409, 429)
