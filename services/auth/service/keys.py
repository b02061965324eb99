"""API keys: creation, changes, verification and charges."""

import asyncio
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import structlog

from services.auth.domain.keys import (
    Digest,
    Key,
    KeyChange,
    RandomText,
    Slot,
    audit_log_of,
    new_secret,
    service_user_of,
    start_of,
)
from services.auth.ports.audit import AuditLog
from services.auth.ports.keys import ApiKeys, CallCounter, KeyAndSpend
from services.auth.ports.tokens import Revocations
from services.auth.service.outbox import TupleOutbox
from services.contracts.auth.audit import AuditAction
from services.contracts.auth.keys import (
    ApiKey,
    ApiKeyRequest,
    ApiKeySecret,
    ChargeApiKeyRequest,
    CreateApiKeyRequest,
    KeyMode,
    ListApiKeysRequest,
    ListApiKeysResponse,
    RotateApiKeyRequest,
    UpdateApiKeyRequest,
    VerifyApiKeyResponse,
    VerifyCode,
)
from services.kit.access.identity import CallerIdentity
from services.kit.clock import Clock
from services.kit.errors import RpcError, not_found
from services.kit.failpoints import failpoint
from services.kit.http.cursors import decode_cursor, encode_cursor
from services.kit.storage.db import Database, Transaction

UNKNOWN_SECRET: Final = Slot(start="", digest=bytes(32))
"""Compared if no key has the start, so that unknown and wrong secrets take equally long."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ApiKeyService:
    """A change, its audit event and its tuples are one transaction."""

    database: Database
    keys: ApiKeys
    outbox: TupleOutbox
    audit: AuditLog
    revocations: Revocations
    counter: CallCounter
    digest: Digest
    random_text: RandomText
    clock: Clock
    recording: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    async def create(self, request: CreateApiKeyRequest, caller: CallerIdentity) -> ApiKeySecret:
        """Create a key of the caller or of an organization; its secret is not stored."""
        secret, slot = self._new_secret(request.mode)
        now = self.clock()
        key = Key.create(
            request,
            key_id=f"key_{secrets.token_hex(16)}",
            user_id=caller.user_id,
            email=caller.email,
            scopes=caller.scopes,
            slot=slot,
            at=now,
        )
        async with self.database.transaction() as transaction:
            await self.keys.add(transaction, key)
            await self.outbox.add(transaction, key.ownership())
            await self._record(transaction, AuditAction.KEY_CREATED, key, caller)
        await failpoint("auth.key_created")
        await self.outbox.relay()
        return ApiKeySecret(api_key=key.view(0.0, now), secret=secret)

    async def page(
        self, request: ListApiKeysRequest, caller: CallerIdentity
    ) -> ListApiKeysResponse:
        """A page of the keys of the caller, or of an organization."""
        organization = request.organization_id
        scope = f"keys {organization} {caller.user_id}"
        owner = service_user_of(organization) if organization else caller.user_id
        before = decode_cursor(scope, request.cursor) if request.cursor else None
        now = self.clock()
        found, more = await self.keys.page(
            owner, organization, now, limit=request.limit, before=before
        )
        return ListApiKeysResponse(
            api_keys=[key.view(spent, now) for key, spent in found],
            next_cursor=encode_cursor(scope, more) if more is not None else None,
        )

    async def get(self, request: ApiKeyRequest) -> ApiKey:
        now = self.clock()
        return _view(await self.keys.get(request.key_id, now), now)

    async def update(self, request: UpdateApiKeyRequest, caller: CallerIdentity) -> ApiKey:
        now = self.clock()

        def decide(key: Key) -> KeyChange:
            changed = key.update(request, caller.scopes, now)
            revokes = changed.narrowed_from(key)
            return KeyChange(key=changed, action=AuditAction.KEY_UPDATED, revokes=revokes)

        return await self._change(request.key_id, decide, caller, now)

    async def rotate(self, request: RotateApiKeyRequest, caller: CallerIdentity) -> ApiKeySecret:
        """Give the key a new secret; the previous one is valid for the grace period."""
        now, grace = self.clock(), timedelta(seconds=request.grace_seconds)
        secret = ""

        def decide(key: Key) -> KeyChange:
            nonlocal secret
            secret, slot = self._new_secret(key.mode)
            rotated = key.rotate(slot, grace, now)
            return KeyChange(key=rotated, action=AuditAction.KEY_ROTATED, revokes=not grace)

        api_key = await self._change(request.key_id, decide, caller, now)
        return ApiKeySecret(api_key=api_key, secret=secret)

    async def revoke(self, request: ApiKeyRequest, caller: CallerIdentity) -> ApiKey:
        """Revoke the key and its tokens; repeatable."""
        now = self.clock()

        def decide(key: Key) -> KeyChange | None:
            if key.revoked_at is not None:
                return None
            return KeyChange(key=key.revoke(now), action=AuditAction.KEY_REVOKED, revokes=True)

        return await self._change(request.key_id, decide, caller, now)

    async def verify(self, secret: str, scope: str | None, cost: int) -> VerifyApiKeyResponse:
        """Verify a secret, and count `cost` calls if it is valid."""
        now = self.clock()
        start = start_of(secret)
        found = await self.keys.find(start, now) if start else None
        slot = found[0].slot(start, now) if found and start else None
        right = hmac.compare_digest((slot or UNKNOWN_SECRET).digest, self.digest(secret))
        if found is None or slot is None or not right:
            return VerifyApiKeyResponse(valid=False, code=VerifyCode.NOT_FOUND)
        key, spent = found
        code, calls = key.verdict(now, spent, scope), None
        if code is VerifyCode.VALID and key.rate_limit is not None:
            calls = await self.counter.count(key.key_id, key.rate_limit, cost)
            code = VerifyCode.RATE_LIMITED if calls is None else code
        if code is VerifyCode.VALID:
            self._record_use(key, now)
        return VerifyApiKeyResponse(
            valid=code is VerifyCode.VALID,
            code=code,
            key_id=key.key_id,
            user_id=key.user_id,
            email=key.email or None,
            scopes=key.scopes,
            rate_limit=key.rate_limit,
            remaining_calls=calls,
            remaining_budget=max(0.0, key.budget.amount - spent) if key.budget else None,
            expires_at=slot.expires_at,
        )

    async def charge(self, request: ChargeApiKeyRequest) -> None:
        """Book a charge, once per reference."""
        await self.keys.charge(request.key_id, request.reference, request.amount, self.clock())

    async def purge(self) -> None:
        """Delete references of charges that are too old to be repeated."""
        await self.keys.purge(self.clock())

    async def close(self) -> None:
        """Finish the writes of `last_used_at`."""
        await asyncio.gather(*self.recording, return_exceptions=True)

    async def _change(
        self,
        key_id: str,
        decide: Callable[[Key], KeyChange | None],
        caller: CallerIdentity,
        now: datetime,
    ) -> ApiKey:
        async with self.database.transaction() as transaction:
            found = await self.keys.lock(transaction, key_id, now)
            change = decide(found[0]) if found else None
            if change is None:
                return _view(found, now)
            await self.keys.save(transaction, change.key)
            await self._record(transaction, change.action, change.key, caller)
            if change.revokes:
                await self.revocations.revoke("key_id", key_id, transaction=transaction)
        await failpoint("auth.key_changed")
        return _view(await self.keys.get(key_id, now), now)

    async def _record(
        self, transaction: Transaction, action: AuditAction, key: Key, caller: CallerIdentity
    ) -> None:
        await self.audit.record(
            action,
            actor=caller.user_id,
            owner=audit_log_of(key.user_id),
            object=f"api_key:{key.key_id}",
            details={"name": key.name, **caller.audit_details},
            transaction=transaction,
        )

    def _new_secret(self, mode: KeyMode) -> tuple[str, Slot]:
        secret = new_secret(mode, self.random_text)
        start = start_of(secret)
        assert start is not None
        return secret, Slot(start=start, digest=self.digest(secret))

    def _record_use(self, key: Key, now: datetime) -> None:
        if not key.is_use_due(now):
            return
        task = asyncio.create_task(self._try_record_use(key.key_id, now))
        self.recording.add(task)
        task.add_done_callback(self.recording.discard)

    async def _try_record_use(self, key_id: str, now: datetime) -> None:
        try:
            await self.keys.record_use(key_id, now)
        except RpcError as error:
            log.warning("keys.use_not_recorded", code=error.code)


def _view(found: KeyAndSpend | None, at: datetime) -> ApiKey:
    if found is None:
        raise not_found("api_key")
    key, spent = found
    return key.view(spent, at)
