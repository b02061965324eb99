"""Issues access tokens, and knows them again."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from services.auth.domain.keys import is_reserved
from services.auth.domain.sessions import Subject
from services.auth.domain.signing import (
    SigningKey,
    needs_successor,
    signing_key,
    successor_begins,
    verifying_keys,
)
from services.auth.ports.signing import KeyForge, KeyStore
from services.contracts.apps import USER_SCOPES
from services.contracts.auth.tokens import AccessToken, IssueLocalTokenRequest, Jwks
from services.kit.clock import Clock
from services.kit.errors import ErrorCode, RpcError


@dataclass(frozen=True, slots=True)
class Issuer:
    """Issues tokens with the key of the hour."""

    keys: KeyStore
    forge: KeyForge
    clock: Clock
    issuer: str
    audience: str
    max_age: timedelta
    issues_local_tokens: bool

    async def issue(self, request: IssueLocalTokenRequest) -> AccessToken:
        """A token for a local user."""
        if not self.issues_local_tokens:
            raise RpcError(
                ErrorCode.PERMISSION_DENIED, "Local tokens are not issued in production."
            )
        if is_reserved(request.user_id):
            raise RpcError.invalid("userId", "is that of an organization's keys")
        subject = Subject(
            user_id=request.user_id,
            email=request.email,
            scopes=request.scopes or list(USER_SCOPES),
        )
        now = self.clock()
        return await self.sign(subject, now, now + timedelta(seconds=request.ttl_seconds))

    async def sign(self, subject: Subject, now: datetime, until: datetime) -> AccessToken:
        """A token for a subject."""
        key = signing_key(await self.keys.all(), now)
        if key is None:
            raise RpcError(ErrorCode.UNAVAILABLE, "There is no signing key yet; try again.")
        expires = until.replace(microsecond=0)
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": subject.user_id,
            "email": subject.email,
            "scope": " ".join(subject.scopes),
            "iat": int(now.timestamp()),
            "nbf": int(now.timestamp()),
            "exp": int(expires.timestamp()),
            "jti": secrets.token_hex(16),
        }
        claims |= subject.model_dump(include={"sid", "key_id"}, exclude_none=True)
        return AccessToken(access_token=self.forge.sign(key, claims), expires_at=expires)

    async def claims(self, token: str) -> dict[str, Any] | None:
        """What a token of ours says, over or not; None for any other."""
        claims = self.forge.verify(verifying_keys(await self.keys.all(), self.clock()), token)
        ours = claims is not None and claims.get("iss") == self.issuer
        return claims if ours else None

    async def published(self) -> Jwks:
        """The key set as it is now."""
        keys = verifying_keys(await self.keys.all(), self.clock())
        return Jwks(keys=[key.public for key in keys])

    async def rotate(self) -> None:
        """Make the next key, unless one is on its way."""
        await self.keys.add(self._next)

    async def rotate_when_due(self) -> None:
        """Make a key where there is none, or where the newest is old."""

        def decide(keys: Sequence[SigningKey]) -> SigningKey | None:
            due = needs_successor(keys, self.clock(), self.max_age)
            return self._next(keys) if due else None

        await self.keys.add(decide)

    def _next(self, keys: Sequence[SigningKey]) -> SigningKey | None:
        begins = successor_begins(keys, self.clock())
        return self.forge.make(begins) if begins else None
