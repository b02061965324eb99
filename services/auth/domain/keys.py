"""API keys: how a secret is written, what a key may do at a moment, and how it changes."""

import re
import string
import zlib
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, Self

from pydantic import BaseModel, Field

from services.contracts.apps import KEY_SCOPES
from services.contracts.auth.audit import AuditAction
from services.contracts.auth.keys import (
    ApiKey,
    BudgetPeriod,
    CreateApiKeyRequest,
    KeyBudget,
    KeyMode,
    KeyRateLimit,
    KeyStatus,
    UpdateApiKeyRequest,
    VerifyCode,
)
from services.kit.errors import ErrorCode, RpcError

BASE62: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
START_LENGTH: Final = 10
"""Characters that are kept in clear: by them a key is found and known again by its owner."""
SECRET_LENGTH: Final = 28
"""Characters that nobody but the holder knows: 28 of 62 are 166 bits."""
CHECKSUM_LENGTH: Final = 6
LAST_USED_EVERY: Final = timedelta(seconds=30)
ORGANIZATION: Final = "organization."
"""How the ids of service users begin, as whom the keys of organizations act."""

_SECRET: Final = re.compile(
    rf"(yk_(?:live|test)_[0-9A-Za-z]{{{START_LENGTH}}})[0-9A-Za-z]{{{SECRET_LENGTH + CHECKSUM_LENGTH}}}"
)

Draw = Callable[[int], str]
"""So many random characters of BASE62."""
Digest = Callable[[str], bytes]
"""A keyed hash of a secret."""


def principal_of(organization_id: str) -> str:
    """The service user of an organization."""
    return ORGANIZATION + organization_id


def is_reserved(user_id: str) -> bool:
    """Whether an id can belong to no person."""
    return user_id.startswith(ORGANIZATION)


def log_of(user_id: str) -> str:
    """Whose audit log a user's doings are in: `user:…`, or `organization:…` for its service user."""
    if is_reserved(user_id):
        return f"organization:{user_id.removeprefix(ORGANIZATION)}"
    return f"user:{user_id}"


def new_secret(mode: KeyMode, draw: Draw) -> str:
    """A secret; its checksum tells a typo, or a scanner what is none of ours."""
    body = f"yk_{mode.lower()}_{draw(START_LENGTH + SECRET_LENGTH)}"
    return body + checksum(body)


def start_of(secret: str) -> str | None:
    """The part by which a key is found; None for what cannot be a key."""
    match = _SECRET.fullmatch(secret)
    if match is None or checksum(secret[:-CHECKSUM_LENGTH]) != secret[-CHECKSUM_LENGTH:]:
        return None
    return match[1]


def checksum(text: str) -> str:
    """CRC-32 in six characters."""
    value, characters = zlib.crc32(text.encode()), ""
    for _ in range(CHECKSUM_LENGTH):
        value, digit = divmod(value, len(BASE62))
        characters = BASE62[digit] + characters
    return characters


def period_began(period: BudgetPeriod, at: datetime) -> date:
    """The first UTC day that counts."""
    today = at.astimezone(UTC).date()
    if period is BudgetPeriod.TOTAL:
        return date.min
    return today if period is BudgetPeriod.DAY else today.replace(day=1)


def granted(wanted: Sequence[str], own: Collection[str]) -> list[str]:
    """The scopes of a key, without repetition.

    Raises:
        RpcError: INVALID_ARGUMENT for a scope that no key may have, or that whoever gives it has not.
    """
    for index, scope in enumerate(wanted):
        if scope not in KEY_SCOPES:
            raise RpcError.invalid(f"scopes[{index}]", "cannot be given to a key")
        if scope not in own:
            raise RpcError.invalid(f"scopes[{index}]", "is more than your own token may do")
    return list(dict.fromkeys(wanted))


class Slot(BaseModel):
    """A secret that works: its hash, and until when."""

    start: str
    digest: bytes
    expires_at: datetime | None = None


class Key(BaseModel):
    """A key. It acts as `user_id`: its owner, or the service user of the organization that owns it."""

    key_id: str
    user_id: str
    organization_id: str | None = None
    email: str = ""
    name: str
    mode: KeyMode
    scopes: list[str]
    rate_limit: KeyRateLimit | None = None
    budget: KeyBudget | None = None
    created_at: datetime
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None
    start: str
    digest: bytes = Field(repr=False)
    previous_start: str | None = None
    previous_digest: bytes | None = Field(default=None, repr=False)
    previous_expires_at: datetime | None = None

    @classmethod
    def create(
        cls,
        request: CreateApiKeyRequest,
        *,
        key_id: str,
        user_id: str,
        email: str,
        scopes: Collection[str],
        slot: Slot,
        at: datetime,
    ) -> Self:
        """A key that its maker, who has `scopes`, may make."""
        _require_future(request.expires_at, at)
        organization = request.organization_id
        return cls(
            key_id=key_id,
            user_id=principal_of(organization) if organization else user_id,
            organization_id=organization,
            email="" if organization else email,
            name=request.name,
            mode=request.mode,
            scopes=granted(request.scopes, scopes),
            rate_limit=request.rate_limit,
            budget=request.budget,
            created_at=at,
            expires_at=request.expires_at,
            start=slot.start,
            digest=slot.digest,
        )

    def status(self, at: datetime) -> KeyStatus:
        """Whether it works."""
        if self.revoked_at is not None:
            return KeyStatus.REVOKED
        over = self.expires_at is not None and self.expires_at <= at
        return KeyStatus.EXPIRED if over else KeyStatus.ACTIVE

    def slot(self, start: str, at: datetime) -> Slot | None:
        """The secret that begins like this, the current one or one in its grace."""
        if start == self.start:
            return Slot(start=start, digest=self.digest, expires_at=self.expires_at)
        ends = self.previous_expires_at
        if start != self.previous_start or self.previous_digest is None or not ends or ends <= at:
            return None
        ends = min(ends, self.expires_at) if self.expires_at else ends
        return Slot(start=start, digest=self.previous_digest, expires_at=ends)

    def verdict(self, at: datetime, spent: float, scope: str | None) -> VerifyCode:
        """What it may do now, but for its rate, which counts."""
        status = self.status(at)
        if status is not KeyStatus.ACTIVE:
            return VerifyCode(status.value)
        if scope is not None and scope not in self.scopes:
            return VerifyCode.INSUFFICIENT_SCOPE
        if self.budget is not None and spent >= self.budget.amount:
            return VerifyCode.BUDGET_EXCEEDED
        return VerifyCode.VALID

    def update(self, request: UpdateApiKeyRequest, own: Collection[str], at: datetime) -> Self:
        """The key with the fields that the request has; an explicit null lifts a limit or an expiry."""
        fields = request.model_fields_set - {"key_id"}
        for field in ("name", "scopes"):
            if field in fields and getattr(request, field) is None:
                raise RpcError.invalid(field, "cannot be lifted")
        changed: dict[str, Any] = {field: getattr(request, field) for field in fields}
        if request.scopes is not None:
            changed["scopes"] = granted(request.scopes, own)
        _require_future(request.expires_at, at)
        return self.model_copy(update=changed)

    def narrowed_from(self, before: Self) -> bool:
        """Whether tokens that the key was traded for may now do more, or for longer, than it."""
        if set(before.scopes) - set(self.scopes):
            return True
        if self.expires_at is None:
            return False
        return before.expires_at is None or self.expires_at < before.expires_at

    def rotate(self, slot: Slot, grace: timedelta, at: datetime) -> Self:
        """The key with a new secret; the one before works until the grace is over, an older one no more.

        Raises:
            RpcError: FAILED_PRECONDITION where the key does not work.
        """
        if (status := self.status(at)) is not KeyStatus.ACTIVE:
            raise RpcError(ErrorCode.FAILED_PRECONDITION, f"The key is {status.lower()}.")
        kept = grace > timedelta(0)
        return self.model_copy(
            update={
                "start": slot.start,
                "digest": slot.digest,
                "previous_start": self.start if kept else None,
                "previous_digest": self.digest if kept else None,
                "previous_expires_at": at + grace if kept else None,
            }
        )

    def revoke(self, at: datetime) -> Self:
        """The key, ended with all its secrets; the first end counts."""
        return self.model_copy(
            update={
                "revoked_at": self.revoked_at or at,
                "previous_start": None,
                "previous_digest": None,
                "previous_expires_at": None,
            }
        )

    def is_used_again(self, at: datetime) -> bool:
        """Whether this use is worth noting."""
        return self.last_used_at is None or self.last_used_at <= at - LAST_USED_EVERY

    def shown(self, spent: float, at: datetime) -> ApiKey:
        """The key as its owner sees it."""
        return ApiKey(
            key_id=self.key_id,
            name=self.name,
            mode=self.mode,
            start=self.start,
            status=self.status(at),
            user_id=self.user_id,
            organization_id=self.organization_id,
            scopes=self.scopes,
            rate_limit=self.rate_limit,
            budget=self.budget,
            spent=spent,
            created_at=self.created_at,
            expires_at=self.expires_at,
            last_used_at=self.last_used_at,
            revoked_at=self.revoked_at,
            previous_expires_at=self.previous_expires_at,
        )


class KeyChange(BaseModel):
    """What becomes of a key, and what is said of it; `revokes` ends the tokens that it was traded for."""

    key: Key
    action: AuditAction
    revokes: bool = False


def _require_future(expires_at: datetime | None, at: datetime) -> None:
    if expires_at is not None and expires_at <= at:
        raise RpcError.invalid("expiresAt", "must be in the future")
