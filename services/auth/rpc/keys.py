"""`yocaso.auth.v1.ApiKeyService`."""

import asyncio
import hmac
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Final

import structlog
from fastapi import Depends, Request

from services.auth.domain.keys import (
    Digest,
    Draw,
    Key,
    KeyChange,
    Slot,
    new_secret,
    principal_of,
    start_of,
)
from services.auth.ports.keys import ApiKeys, CallCounter
from services.contracts.auth.audit import AuditAction
from services.contracts.auth.authorization import ADMIN
from services.contracts.auth.keys import (
    API_KEY_SERVICE,
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
    VerifyApiKeyRequest,
    VerifyApiKeyResponse,
    VerifyCode,
)
from services.kit.access.authorization import (
    AccessControl,
    Caller,
    CallingApp,
    Permitted,
    access_control,
)
from services.kit.access.identity import CallerIdentity
from services.kit.clock import Clock
from services.kit.contract import Empty
from services.kit.errors import ErrorCode, RpcError, not_found
from services.kit.http.cursors import decode_cursor, encode_cursor
from services.kit.http.dependencies import provided
from services.kit.http.rpc import RpcRouter

NOBODY: Final = Slot(start="", digest=bytes(32))
"""Compared with where no key begins so: what is unknown costs as much as what is wrong."""

rpc = RpcRouter(API_KEY_SERVICE)
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Verified:
    """What a secret proved. `until` is when this secret ends, if ever."""

    code: VerifyCode
    key: Key | None = None
    until: datetime | None = None
    remaining_calls: int | None = None
    remaining_budget: float | None = None


@dataclass(frozen=True, slots=True)
class Keys:
    """Makes, changes and verifies API keys."""

    keys: ApiKeys
    counter: CallCounter
    digest: Digest
    draw: Draw
    clock: Clock
    noting: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    async def create(self, request: CreateApiKeyRequest, caller: CallerIdentity) -> ApiKeySecret:
        """A new key, of the caller or of an organization."""
        secret, slot = self._secret(request.mode)
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
        await self.keys.add(key, actor=caller.user_id)
        return ApiKeySecret(api_key=key.shown(0.0, now), secret=secret)

    async def page(self, request: ListApiKeysRequest, user_id: str) -> ListApiKeysResponse:
        """A page of the keys of a user, or of an organization."""
        organization = request.organization_id
        scope = f"keys {organization} {user_id}"
        owner = principal_of(organization) if organization else user_id
        before = decode_cursor(scope, request.cursor) if request.cursor else None
        now = self.clock()
        found, more = await self.keys.page(
            owner, organization, now, limit=request.limit, before=before
        )
        return ListApiKeysResponse(
            api_keys=[key.shown(spent, now) for key, spent in found],
            next_cursor=encode_cursor(scope, more) if more is not None else None,
        )

    async def get(self, key_id: str) -> ApiKey:
        """A key."""
        now = self.clock()
        return _shown(await self.keys.get(key_id, now), now)

    async def update(self, request: UpdateApiKeyRequest, caller: CallerIdentity) -> ApiKey:
        """The key, changed."""
        now = self.clock()

        def decide(key: Key) -> KeyChange:
            changed = key.update(request, caller.scopes, now)
            revokes = changed.narrowed_from(key)
            return KeyChange(key=changed, action=AuditAction.KEY_UPDATED, revokes=revokes)

        found = await self.keys.change(request.key_id, decide, actor=caller.user_id, at=now)
        return _shown(found, now)

    async def rotate(self, request: RotateApiKeyRequest, caller: CallerIdentity) -> ApiKeySecret:
        """The key with a new secret."""
        now, grace = self.clock(), timedelta(seconds=request.grace_seconds)
        secret = ""

        def decide(key: Key) -> KeyChange:
            nonlocal secret
            secret, slot = self._secret(key.mode)
            rotated = key.rotate(slot, grace, now)
            return KeyChange(key=rotated, action=AuditAction.KEY_ROTATED, revokes=not grace)

        found = await self.keys.change(request.key_id, decide, actor=caller.user_id, at=now)
        return ApiKeySecret(api_key=_shown(found, now), secret=secret)

    async def revoke(self, key_id: str, caller: CallerIdentity) -> ApiKey:
        """The key, ended; once more changes nothing."""
        now = self.clock()

        def decide(key: Key) -> KeyChange | None:
            if key.revoked_at is not None:
                return None
            return KeyChange(key=key.revoke(now), action=AuditAction.KEY_REVOKED, revokes=True)

        found = await self.keys.change(key_id, decide, actor=caller.user_id, at=now)
        return _shown(found, now)

    async def verify(self, secret: str, scope: str | None, cost: int) -> Verified:
        """Say whether a secret is good, and count the call if it is."""
        now = self.clock()
        start = start_of(secret)
        found = await self.keys.find(start, now) if start else None
        slot = found[0].slot(start, now) if found and start else None
        right = hmac.compare_digest((slot or NOBODY).digest, self.digest(secret))
        if found is None or slot is None or not right:
            return Verified(VerifyCode.NOT_FOUND)
        key, spent = found
        code, calls = key.verdict(now, spent, scope), None
        if code is VerifyCode.VALID and key.rate_limit is not None:
            calls = await self.counter.count(key.key_id, key.rate_limit, cost)
            code = VerifyCode.RATE_LIMITED if calls is None else code
        if code is VerifyCode.VALID:
            self._note_use(key, now)
        left = max(0.0, key.budget.amount - spent) if key.budget else None
        return Verified(code, key, slot.expires_at, calls, left)

    async def charge(self, request: ChargeApiKeyRequest) -> None:
        """Book a cost."""
        await self.keys.charge(request.key_id, request.reference, request.amount, self.clock())

    async def close(self) -> None:
        """Finish what is being noted."""
        await asyncio.gather(*self.noting, return_exceptions=True)

    def _secret(self, mode: KeyMode) -> tuple[str, Slot]:
        secret = new_secret(mode, self.draw)
        start = start_of(secret)
        assert start is not None
        return secret, Slot(start=start, digest=self.digest(secret))

    def _note_use(self, key: Key, now: datetime) -> None:
        if not key.is_used_again(now):
            return
        task = asyncio.create_task(self._used(key.key_id, now))
        self.noting.add(task)
        task.add_done_callback(self.noting.discard)

    async def _used(self, key_id: str, now: datetime) -> None:
        try:
            await self.keys.used(key_id, now)
        except RpcError as error:
            log.warning("keys.use_not_noted", code=error.code)


async def _control(request: Request) -> AccessControl:
    return access_control(request)


With = Annotated[Keys, Depends(provided(Keys))]
WithControl = Annotated[AccessControl, Depends(_control)]
Manager = Annotated[CallerIdentity, Depends(Permitted("manager", "key_id", kind="api_key"))]
"""Somebody who manages the key that the request names."""


async def require_admin(
    control: AccessControl, caller: CallerIdentity, organization_id: str | None
) -> None:
    """The caller administers the organization, where one is named."""
    if organization_id is not None:
        await control.require(caller, ADMIN, f"organization:{organization_id}", seen_by=ADMIN)


def refuse_keys(caller: CallerIdentity) -> None:
    """No key makes keys, or makes them do more."""
    if caller.key_id is not None:
        raise RpcError(ErrorCode.PERMISSION_DENIED, "An API key cannot make or change keys.")


@rpc.method
async def create_api_key(
    request: CreateApiKeyRequest, caller: Caller, using: With, control: WithControl
) -> ApiKeySecret:
    """Make a key; its secret is shown once."""
    refuse_keys(caller)
    await require_admin(control, caller, request.organization_id)
    return await using.create(request, caller)


@rpc.method
async def list_api_keys(
    request: ListApiKeysRequest, caller: Caller, using: With, control: WithControl
) -> ListApiKeysResponse:
    """List keys."""
    await require_admin(control, caller, request.organization_id)
    return await using.page(request, caller.user_id)


@rpc.method
async def get_api_key(request: ApiKeyRequest, _: Manager, using: With) -> ApiKey:
    """Read a key."""
    return await using.get(request.key_id)


@rpc.method
async def update_api_key(request: UpdateApiKeyRequest, caller: Manager, using: With) -> ApiKey:
    """Change a key's name, scopes, expiry or limits."""
    refuse_keys(caller)
    return await using.update(request, caller)


@rpc.method
async def rotate_api_key(
    request: RotateApiKeyRequest, caller: Manager, using: With
) -> ApiKeySecret:
    """Give a key a new secret; the old one works for a while."""
    refuse_keys(caller)
    return await using.rotate(request, caller)


@rpc.method
async def revoke_api_key(request: ApiKeyRequest, caller: Manager, using: With) -> ApiKey:
    """End a key, everywhere within 5 s."""
    return await using.revoke(request.key_id, caller)


@rpc.method
async def verify_api_key(
    request: VerifyApiKeyRequest, _: CallingApp, using: With
) -> VerifyApiKeyResponse:
    """Say whether a secret is good, whose it is, and what is left of its limits."""
    found = await using.verify(request.secret, request.scope, request.cost)
    return _answer(found)


@rpc.method
async def charge_api_key(request: ChargeApiKeyRequest, _: CallingApp, using: With) -> Empty:
    """Book a cost on a key."""
    await using.charge(request)
    return Empty()


def _shown(found: tuple[Key, float] | None, at: datetime) -> ApiKey:
    if found is None:
        raise not_found("api_key")
    key, spent = found
    return key.shown(spent, at)


def _answer(found: Verified) -> VerifyApiKeyResponse:
    valid = found.code is VerifyCode.VALID
    if found.key is None:
        return VerifyApiKeyResponse(valid=valid, code=found.code)
    return VerifyApiKeyResponse(
        valid=valid,
        code=found.code,
        key_id=found.key.key_id,
        user_id=found.key.user_id,
        email=found.key.email or None,
        scopes=found.key.scopes,
        rate_limit=found.key.rate_limit,
        remaining_calls=found.remaining_calls,
        remaining_budget=found.remaining_budget,
        expires_at=found.until,
    )
