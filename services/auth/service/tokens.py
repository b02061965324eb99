"""Access tokens: their signing keys, and the sign-ins and API keys that they are issued for."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from services.auth.domain.firebase import FirebaseTokenKind, FirebaseUser
from services.auth.domain.keys import Digest, RandomText, audit_log_of, is_reserved
from services.auth.domain.sessions import (
    SESSION_LIFE,
    SID_LENGTH,
    Session,
    Subject,
    TokenUse,
    new_refresh_token,
    session_id_of,
)
from services.auth.domain.signing import (
    SigningKey,
    needs_successor,
    signing_key,
    successor_begins,
    verifying_keys,
)
from services.auth.ports.audit import AuditLog
from services.auth.ports.firebase import SignIn
from services.auth.ports.tokens import Revocations, Sessions, SigningKeys, TokenSigner
from services.auth.service.keys import ApiKeyService
from services.contracts.apps import USER_SCOPES
from services.contracts.auth.audit import AuditAction
from services.contracts.auth.keys import VerifyCode
from services.contracts.auth.tokens import (
    AccessToken,
    ExchangeTokenRequest,
    IssueLocalTokenRequest,
    Jwks,
    ListRevocationsResponse,
    RefreshTokenRequest,
    RevokeTokenRequest,
    SubjectTokenType,
    TokenResponse,
)
from services.kit.clock import Clock
from services.kit.errors import ErrorCode, RpcError
from services.kit.failpoints import failpoint
from services.kit.storage.db import Database, Transaction

FIREBASE_TOKENS: Final = {
    SubjectTokenType.FIREBASE_ID_TOKEN: FirebaseTokenKind.ID_TOKEN,
    SubjectTokenType.FIREBASE_SESSION_COOKIE: FirebaseTokenKind.SESSION_COOKIE,
}


@dataclass(frozen=True, slots=True)
class TokenIssuer:
    """Signs and verifies access tokens, and rotates the signing keys."""

    keys: SigningKeys
    signer: TokenSigner
    clock: Clock
    issuer: str
    audience: str
    max_age: timedelta
    issues_local_tokens: bool

    async def issue_local(self, request: IssueLocalTokenRequest) -> AccessToken:
        """Issue a token to a local user, outside production."""
        if not self.issues_local_tokens:
            raise RpcError(
                ErrorCode.PERMISSION_DENIED, "Local tokens are not issued in production."
            )
        if is_reserved(request.user_id):
            raise RpcError.invalid("userId", "is that of an organization's keys")
        subject = Subject(
            user_id=request.user_id, email=request.email, scopes=request.scopes or list(USER_SCOPES)
        )
        now = self.clock()
        return await self.sign(subject, now, now + timedelta(seconds=request.ttl_seconds))

    async def sign(self, subject: Subject, now: datetime, until: datetime) -> AccessToken:
        """Sign a token for a subject."""
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
        return AccessToken(access_token=self.signer.sign(key, claims), expires_at=expires)

    async def claims(self, token: str) -> dict[str, Any] | None:
        """The claims of one of our tokens, expired or not; None for any other."""
        claims = self.signer.verify(verifying_keys(await self.keys.all(), self.clock()), token)
        ours = claims is not None and claims.get("iss") == self.issuer
        return claims if ours else None

    async def published(self) -> Jwks:
        """The current JWKS."""
        keys = verifying_keys(await self.keys.all(), self.clock())
        return Jwks(keys=[key.public for key in keys])

    async def rotate(self) -> Jwks:
        """Add the next signing key, unless one is published already; the JWKS with it."""
        await self.keys.add(self._next)
        return await self.published()

    async def rotate_when_due(self) -> None:
        """Add a signing key if there is none or the newest is too old."""

        def decide(keys: Sequence[SigningKey]) -> SigningKey | None:
            due = needs_successor(keys, self.clock(), self.max_age)
            return self._next(keys) if due else None

        await self.keys.add(decide)

    def _next(self, keys: Sequence[SigningKey]) -> SigningKey | None:
        begins = successor_begins(keys, self.clock())
        return self.signer.make_key(begins) if begins else None


@dataclass(frozen=True, slots=True)
class TokenService:
    """Exchanges credentials for tokens. A change of a session and its audit event are one transaction."""

    database: Database
    sessions: Sessions
    revocations: Revocations
    audit: AuditLog
    keys: ApiKeyService
    firebase: SignIn
    issuer: TokenIssuer
    digest: Digest
    random_text: RandomText
    clock: Clock
    access_token_life: timedelta

    async def exchange(self, request: ExchangeTokenRequest) -> TokenResponse:
        """Exchange an API key, or a sign-in by Firebase, which begins a session."""
        kind = FIREBASE_TOKENS.get(request.subject_token_type)
        if kind is None:
            return await self._exchange_key(request)
        user = await self.firebase.sign_in(kind, request.subject_token)
        return await self._begin_session(user, request.scope)

    async def refresh(self, request: RefreshTokenRequest) -> TokenResponse:
        """Exchange a refresh token for the next pair; reuse ends the session."""
        sid = session_id_of(request.refresh_token, self.digest)
        session = await self.sessions.get(sid) if sid else None
        if session is None:
            raise _unauthenticated("The refresh token is not valid.")
        await self.firebase.recheck(session.user_id, session.authenticated_at)
        fresh = new_refresh_token(session.sid, self.random_text, self.digest)
        use = await self._rotate(
            session.sid, self.digest(request.refresh_token), self.digest(fresh)
        )
        await failpoint("auth.session_refreshed")
        if use is TokenUse.REUSED:
            raise _unauthenticated("The refresh token was used before; the session has ended.")
        if use is not TokenUse.VALID:
            raise _unauthenticated("The session has ended.")
        return await self._respond(session.subject(), fresh)

    async def revoke(self, request: RevokeTokenRequest) -> None:
        """End the session of a token; ignore tokens that are not ours."""
        sid = session_id_of(request.token, self.digest) or await self._sid_claim(request.token)
        if sid is None:
            return
        async with self.database.transaction() as transaction:
            session = await self.sessions.lock(transaction, sid)
            if session is not None and session.ended_at is None:
                await self.revocations.revoke("sid", sid, transaction=transaction)
                await self._record(transaction, AuditAction.TOKEN_REVOKED, session)

    async def revoked(self) -> ListRevocationsResponse:
        """The revocations of tokens that may not have expired."""
        return ListRevocationsResponse(revocations=await self.revocations.all())

    async def purge(self) -> None:
        """Delete expired sessions and revocations."""
        await self.sessions.purge(self.clock())
        await self.revocations.purge()

    async def _begin_session(self, user: FirebaseUser, scope: str | None) -> TokenResponse:
        if is_reserved(user.user_id):
            raise _unauthenticated("The user id is reserved for organizations.")
        now, sid = self.clock(), self.random_text(SID_LENGTH)
        token = new_refresh_token(sid, self.random_text, self.digest)
        subject = Subject(
            user_id=user.user_id, email=user.email or "", scopes=list(USER_SCOPES), sid=sid
        ).narrowed(scope)
        session = Session(
            sid=sid,
            user_id=subject.user_id,
            email=subject.email,
            scopes=subject.scopes,
            authenticated_at=user.authenticated_at,
            created_at=now,
            expires_at=now + SESSION_LIFE,
            digest=self.digest(token),
        )
        async with self.database.transaction() as transaction:
            await self.sessions.add(transaction, session)
            await self._record(transaction, AuditAction.TOKEN_EXCHANGED, session)
        return await self._respond(subject, token)

    async def _rotate(self, sid: str, shown: bytes, fresh: bytes) -> TokenUse | None:
        now = self.clock()
        async with self.database.transaction() as transaction:
            session = await self.sessions.lock(transaction, sid)
            if session is None:
                return None
            use = session.use(shown, now)
            if use is TokenUse.VALID:
                await self.sessions.rotate(transaction, session.refreshed(shown, fresh, now))
            elif use is TokenUse.REUSED:
                await self.revocations.revoke("sid", sid, transaction=transaction)
                await self._record(transaction, AuditAction.TOKEN_REUSED, session)
            return use

    async def _exchange_key(self, request: ExchangeTokenRequest) -> TokenResponse:
        found = await self.keys.verify(request.subject_token, None, 1)
        match found.code:
            case VerifyCode.VALID:
                pass
            case VerifyCode.RATE_LIMITED:
                raise RpcError(ErrorCode.RATE_LIMITED, "The key is past its rate limit.")
            case VerifyCode.BUDGET_EXCEEDED:
                raise RpcError(ErrorCode.BUDGET_EXCEEDED, "The key has spent its budget.")
            case _:
                raise _unauthenticated("The API key is not valid.")
        assert found.user_id is not None
        subject = Subject(
            user_id=found.user_id, email=found.email or "", scopes=found.scopes, key_id=found.key_id
        ).narrowed(request.scope)
        response = await self._respond(subject, None, found.expires_at)
        await self.audit.record(
            AuditAction.TOKEN_EXCHANGED,
            actor=found.user_id,
            owner=audit_log_of(found.user_id),
            object=f"api_key:{found.key_id}",
            key_id=found.key_id,
        )
        return response

    async def _respond(
        self, subject: Subject, refresh_token: str | None, until: datetime | None = None
    ) -> TokenResponse:
        now = self.clock()
        expires = now + self.access_token_life
        token = await self.issuer.sign(subject, now, min(expires, until or expires))
        return TokenResponse(
            access_token=token.access_token,
            expires_in=int(token.expires_at.timestamp()) - int(now.timestamp()),
            scope=" ".join(subject.scopes),
            refresh_token=refresh_token,
        )

    async def _sid_claim(self, token: str) -> str | None:
        claims: dict[str, Any] = await self.issuer.claims(token) or {}
        sid = claims.get("sid")
        return sid if isinstance(sid, str) else None

    async def _record(
        self, transaction: Transaction, action: AuditAction, session: Session
    ) -> None:
        await self.audit.record(
            action,
            actor=session.user_id,
            owner=audit_log_of(session.user_id),
            details={"session": session.sid},
            transaction=transaction,
        )


def _unauthenticated(reason: str) -> RpcError:
    return RpcError(ErrorCode.UNAUTHENTICATED, reason)
