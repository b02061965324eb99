"""Sign-ins: what is traded for an access token, how it goes on, and what ends it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from services.auth.domain.firebase import FirebaseTokenKind, FirebaseUser
from services.auth.domain.keys import Digest, Draw, is_reserved, log_of
from services.auth.domain.sessions import (
    SESSION_LIFE,
    SID_LENGTH,
    Session,
    Subject,
    TokenUse,
    new_refresh_token,
    session_of,
)
from services.auth.ports.audit import AuditLog
from services.auth.ports.sessions import Revocations, Sessions, SignIn
from services.auth.rpc.issuer import Issuer
from services.auth.rpc.keys import Keys
from services.contracts.apps import USER_SCOPES
from services.contracts.auth.audit import AuditAction
from services.contracts.auth.keys import VerifyCode
from services.contracts.auth.tokens import (
    ExchangeTokenRequest,
    ListRevocationsResponse,
    SubjectTokenType,
    TokenResponse,
)
from services.kit.clock import Clock
from services.kit.errors import ErrorCode, RpcError
from services.kit.failpoints import failpoint

FIREBASE_TOKENS: Final = {
    SubjectTokenType.FIREBASE_ID_TOKEN: FirebaseTokenKind.ID_TOKEN,
    SubjectTokenType.FIREBASE_SESSION_COOKIE: FirebaseTokenKind.SESSION_COOKIE,
}


@dataclass(frozen=True, slots=True)
class SignIns:
    """Trades credentials for tokens; `firebase` is None where sign-in by it is off."""

    sessions: Sessions
    revocations: Revocations
    audit: AuditLog
    keys: Keys
    issuer: Issuer
    digest: Digest
    draw: Draw
    clock: Clock
    access_token_life: timedelta

    async def exchange(
        self, request: ExchangeTokenRequest, firebase: SignIn | None
    ) -> TokenResponse:
        """A first token."""
        kind = FIREBASE_TOKENS.get(request.subject_token_type)
        if kind is None:
            return await self._exchange_key(request)
        if firebase is None:
            raise RpcError(ErrorCode.FAILED_PRECONDITION, "Firebase is not configured.")
        return await self._exchange_sign_in(
            await firebase.sign_in(kind, request.subject_token), request.scope
        )

    async def _exchange_sign_in(self, user: FirebaseUser, scope: str | None) -> TokenResponse:
        if is_reserved(user.user_id):
            raise _refused("The sign-in is of nobody.")
        now, sid = self.clock(), self.draw(SID_LENGTH)
        token = new_refresh_token(sid, self.draw, self.digest)
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
        await self.sessions.begin(session)
        return await self._answer(subject, token)

    async def refresh(self, token: str, firebase: SignIn | None) -> TokenResponse:
        """The next pair of tokens."""
        sid = session_of(token, self.digest)
        found = await self.sessions.get(sid) if sid else None
        if sid is None or found is None:
            raise _refused("The refresh token is not valid.")
        if firebase is not None:
            await firebase.recheck(found.user_id, found.authenticated_at)
        fresh = new_refresh_token(sid, self.draw, self.digest)
        shown, now = self.digest(token), self.clock()

        def decide(session: Session) -> tuple[TokenUse, Session]:
            use = session.use(shown, now)
            if use is TokenUse.GOOD:
                session = session.refreshed(shown, self.digest(fresh), now)
            return use, session

        use = await self.sessions.refresh(sid, decide)
        await failpoint("auth.session_refreshed")
        if use is TokenUse.REUSED:
            raise _refused("The refresh token was used before; the session has ended.")
        if use is not TokenUse.GOOD:
            raise _refused("The session is over.")
        return await self._answer(found.subject(), fresh)

    async def revoke(self, token: str) -> None:
        """End the session of a token that we made; anything else is no error."""
        sid = session_of(token, self.digest) or await self._sid_of(token)
        if sid is not None:
            await self.sessions.end(sid)

    async def revoked(self) -> ListRevocationsResponse:
        """What no longer counts."""
        return ListRevocationsResponse(revocations=await self.revocations.all())

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
                raise _refused("The API key is not valid.")
        key = found.key
        assert key is not None
        subject = Subject(
            user_id=key.user_id, email=key.email, scopes=key.scopes, key_id=key.key_id
        ).narrowed(request.scope)
        response = await self._answer(subject, None, found.until)
        await self.audit.record(
            AuditAction.TOKEN_EXCHANGED,
            actor=key.user_id,
            owner=log_of(key.user_id),
            object=f"api_key:{key.key_id}",
            key_id=key.key_id,
        )
        return response

    async def _answer(
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

    async def _sid_of(self, token: str) -> str | None:
        claims: dict[str, Any] = await self.issuer.claims(token) or {}
        sid = claims.get("sid")
        return sid if isinstance(sid, str) else None


def _refused(why: str) -> RpcError:
    return RpcError(ErrorCode.UNAUTHENTICATED, why)
