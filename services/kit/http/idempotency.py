"""Idempotency records, by draft-ietf-httpapi-idempotency-key-header: one effect per key, per caller, for 24 hours.

The first call with a key holds a lease while it runs. A repeat gets the stored reply; a repeat while the first
still runs is refused (ABORTED 409, Retry-After); the same key with another body is IDEMPOTENCY_KEY_REUSED (422).
A reply is stored unless it is a server failure (5xx) or asks to try again; then the key is free again. A process
that dies leaves a lease which ends by itself, and the repeat runs again: effects below must know their own ids.
"""

import asyncio
import hashlib
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from services.kit.errors import ErrorCode, RpcError

if TYPE_CHECKING:  # an app without a database loads no driver
    from services.kit.storage.db import Database

LEASE: Final = timedelta(seconds=8)
"""How long a call owns its key after its process died or froze; past that a repeat runs, and meets the same ids."""
RENEWED_SECONDS: Final = 2.5
"""How often a call that still runs says so."""
KEPT: Final = timedelta(hours=24)
MAX_KEY_LENGTH: Final = 255

# $1 caller, $2 operation, $3 key, $4 fingerprint, $5 owner, $6 lease in seconds, $7 kept in seconds
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
# $1 kept in seconds, $2 limit
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
    """What makes two calls of one operation the same: the caller's own key, else the id that the edge gave the call.

    `explicit` keys are kept for a day; the edge's id only tells a call that a sidecar delivers twice.
    """

    caller: str
    operation: str
    key: str
    explicit: bool = True

    def derive(self, kind: str, *within: str) -> str:
        """An id that every repeat of the call finds again, of its own in each `within`: 32 hexadecimal digits."""
        source = "\0".join((kind, self.caller, self.operation, self.key, *within))
        return hashlib.sha256(source.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class StoredReply:
    """A reply as it went out: HTTP status and body."""

    status: int
    body: bytes


class IdempotencyRecords:
    """Runs an operation once per key."""

    def __init__(self, database: "Database") -> None:
        self._database = database

    async def run(
        self, key: IdempotencyKey, body: bytes, operation: Callable[[], Awaitable[StoredReply]]
    ) -> tuple[StoredReply, bool]:
        """The reply, and whether it is a replay.

        Raises:
            RpcError: ABORTED while another call with this key runs; IDEMPOTENCY_KEY_REUSED for another body.
        """
        scope = (key.caller, key.operation, key.key)
        owner = uuid.uuid4()
        replay = await self._reserve(scope, owner, hashlib.sha256(body).digest())
        if replay is not None:
            return replay, True
        renewing = asyncio.create_task(self._renew(scope, owner), name="idempotency lease")
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
        """Delete some records that are past their time; how many. Replicas do not wait for one another."""
        return len(await self._database.fetch(PURGE, KEPT.total_seconds(), limit))

    async def forget(self, caller: str) -> None:
        """Delete every record of a caller."""
        await self._database.fetch(FORGET, caller)

    async def _renew(self, scope: tuple[str, str, str], owner: uuid.UUID) -> None:
        while True:
            await asyncio.sleep(RENEWED_SECONDS)
            with suppress(RpcError):  # the next time comes before the lease is over
                await self._database.fetch(RENEW, *scope, owner, LEASE.total_seconds())

    async def _reserve(
        self, scope: tuple[str, str, str], owner: uuid.UUID, fingerprint: bytes
    ) -> StoredReply | None:
        times = (LEASE.total_seconds(), KEPT.total_seconds())
        mine = await self._database.fetch_one(RESERVE, *scope, fingerprint, owner, *times)
        if mine is not None:
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
    """Whether a reply is worth storing: not a server failure, and not one that asks to try again."""
    return status < 500 and status not in (409, 429)
