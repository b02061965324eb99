"""Rules of API keys: secrets, scopes, limits and changes."""

import re
import string
import zlib
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, Self

from pydantic import BaseModel, Field

from services.contracts.apps import KEY_SCOPES
from services.contracts.auth.audit import AuditAction
from services.contracts.auth.authorization import MEMBER, OWNER, RelationTuple
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
"""Random characters stored in clear: the key is looked up by them, and shown by them to its owner."""
SECRET_LENGTH: Final = 28
"""Random characters of which only a hash is stored: 166 bits."""
CHECKSUM_LENGTH: Final = 6
LAST_USED_EVERY: Final = timedelta(seconds=30)
"""Precision of `last_used_at`: a write per call would be too much."""
ORGANIZATION: Final = "organization."
"""Prefix of the ids of service users, as which the keys of organizations act."""

_SECRET: Final = re.compile(
    rf"(yk_(?:live|test)_[0-9A-Za-z]{{{START_LENGTH}}})[0-9A-Za-z]{{{SECRET_LENGTH + CHECKSUM_LENGTH}}}"
)

RandomText = Callable[[int], str]
"""Returns this many random characters of BASE62."""
Digest = Callable[[str], bytes]
"""Returns a keyed hash of a secret."""


def service_user_of(organization_id: str) -> str:
    return ORGANIZATION + organization_id


def is_reserved(user_id: str) -> bool:
    """Whether the id is a service user's."""
    return user_id.startswith(ORGANIZATION)


def audit_log_of(user_id: str) -> str:
    """The audit log of a user: `user:…`, or `organization:…` for a service user."""
    if is_reserved(user_id):
        return f"organization:{user_id.removeprefix(ORGANIZATION)}"
    return f"user:{user_id}"


def new_secret(mode: KeyMode, random_text: RandomText) -> str:
    """A secret; its checksum shows typos, and lets secret scanners recognise it."""
    body = f"yk_{mode.lower()}_{random_text(START_LENGTH + SECRET_LENGTH)}"
    return body + checksum(body)


def start_of(secret: str) -> str | None:
    """The part by which a key is looked up; None if the text is not a secret."""
    match = _SECRET.fullmatch(secret)
    if match is None or checksum(secret[:-CHECKSUM_LENGTH]) != secret[-CHECKSUM_LENGTH:]:
        return None
    return match[1]


def checksum(text: str) -> str:
    """CRC-32 in BASE62."""
    value, characters = zlib.crc32(text.encode()), ""
    for _ in range(CHECKSUM_LENGTH):
        value, digit = divmod(value, len(BASE62))
        characters = BASE62[digit] + characters
    return characters


def period_start(period: BudgetPeriod, at: datetime) -> date:
    """The first UTC day of the current period."""
    today = at.astimezone(UTC).date()
    if period is BudgetPeriod.TOTAL:
        return date.min
    return today if period is BudgetPeriod.DAY else today.replace(day=1)


def check_scopes(wanted: Sequence[str], own: Collection[str]) -> list[str]:
    """The scopes of a key, deduplicated.

    Raises:
        RpcError: INVALID_ARGUMENT for a scope that keys may not have, or that is not in `own`.
    """
    for index, scope in enumerate(wanted):
        if scope not in KEY_SCOPES:
            raise RpcError.invalid(f"scopes[{index}]", "cannot be given to a key")
        if scope not in own:
            raise RpcError.invalid(f"scopes[{index}]", "is more than your own token may do")
    return list(dict.fromkeys(wanted))


class Slot(BaseModel):
    """A valid secret: its hash and expiry."""

    start: str
    digest: bytes
    expires_at: datetime | None = None


class Key(BaseModel):
    """An API key. It acts as `user_id`: its owner, or the service user of its organization."""

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
        """A new key of a caller with these scopes."""
        _require_future(request.expires_at, at)
        organization = request.organization_id
        return cls(
            key_id=key_id,
            user_id=service_user_of(organization) if organization else user_id,
            organization_id=organization,
            email="" if organization else email,
            name=request.name,
            mode=request.mode,
            scopes=check_scopes(request.scopes, scopes),
            rate_limit=request.rate_limit,
            budget=request.budget,
            created_at=at,
            expires_at=request.expires_at,
            start=slot.start,
            digest=slot.digest,
        )

    def status(self, at: datetime) -> KeyStatus:
        if self.revoked_at is not None:
            return KeyStatus.REVOKED
        expired = self.expires_at is not None and self.expires_at <= at
        return KeyStatus.EXPIRED if expired else KeyStatus.ACTIVE

    def slot(self, start: str, at: datetime) -> Slot | None:
        """The secret with this start: the current one, or the previous within its grace period."""
        if start == self.start:
            return Slot(start=start, digest=self.digest, expires_at=self.expires_at)
        ends = self.previous_expires_at
        if start != self.previous_start or self.previous_digest is None or not ends or ends <= at:
            return None
        ends = min(ends, self.expires_at) if self.expires_at else ends
        return Slot(start=start, digest=self.previous_digest, expires_at=ends)

    def verdict(self, at: datetime, spent: float, scope: str | None) -> VerifyCode:
        """Whether a call is allowed now, rate limit aside."""
        status = self.status(at)
        if status is not KeyStatus.ACTIVE:
            return VerifyCode(status.value)
        if scope is not None and scope not in self.scopes:
            return VerifyCode.INSUFFICIENT_SCOPE
        if self.budget is not None and spent >= self.budget.amount:
            return VerifyCode.BUDGET_EXCEEDED
        return VerifyCode.VALID

    def update(self, request: UpdateApiKeyRequest, own: Collection[str], at: datetime) -> Self:
        """The key with the fields that the request sets; null removes a limit or the expiry."""
        fields = request.model_fields_set - {"key_id"}
        for field in ("name", "scopes"):
            if field in fields and getattr(request, field) is None:
                raise RpcError.invalid(field, "cannot be lifted")
        changed: dict[str, Any] = {field: getattr(request, field) for field in fields}
        if request.scopes is not None:
            changed["scopes"] = check_scopes(request.scopes, own)
        _require_future(request.expires_at, at)
        return self.model_copy(update=changed)

    def narrowed_from(self, before: Self) -> bool:
        """Whether tokens exchanged for the earlier key would exceed this one in scopes or lifetime."""
        if set(before.scopes) - set(self.scopes):
            return True
        if self.expires_at is None:
            return False
        return before.expires_at is None or self.expires_at < before.expires_at

    def rotate(self, slot: Slot, grace: timedelta, at: datetime) -> Self:
        """The key with a new secret; the previous one stays valid for the grace period.

        Raises:
            RpcError: FAILED_PRECONDITION if the key is not active.
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
        """The key, revoked with all its secrets; `revoked_at` keeps the first time."""
        return self.model_copy(
            update={
                "revoked_at": self.revoked_at or at,
                "previous_start": None,
                "previous_digest": None,
                "previous_expires_at": None,
            }
        )

    def ownership(self) -> list[RelationTuple]:
        """The tuples to write with a new key; a service user becomes a member of its organization."""
        owner = audit_log_of(self.user_id)
        tuples = [RelationTuple(subject=owner, relation=OWNER, object=f"api_key:{self.key_id}")]
        if self.organization_id is not None:
            service_user = f"user:{self.user_id}"
            tuples.append(RelationTuple(subject=service_user, relation=MEMBER, object=owner))
        return tuples

    def is_use_due(self, at: datetime) -> bool:
        """Whether `last_used_at` is old enough to be written again."""
        return self.last_used_at is None or self.last_used_at <= at - LAST_USED_EVERY

    def view(self, spent: float, at: datetime) -> ApiKey:
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
    """A changed key and its audit action; `revokes` revokes the tokens exchanged for it."""

    key: Key
    action: AuditAction
    revokes: bool = False


def _require_future(expires_at: datetime | None, at: datetime) -> None:
    if expires_at is not None and expires_at <= at:
        raise RpcError.invalid("expiresAt", "must be in the future")
