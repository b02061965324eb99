"""`yocaso.auth.v1.TokenService`, and the public key set."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import Response

from services.auth.domain.firebase import FirebaseTokenKind
from services.auth.domain.signing import (
    SigningKey,
    needs_successor,
    signing_key,
    successor_begins,
    verifying_keys,
)
from services.auth.ports.signing import KeyForge, KeyStore
from services.auth.rpc.firebase import WithFirebase, require
from services.contracts.scopes import USER_SCOPES
from services.contracts.tokens import (
    TOKEN_SERVICE,
    AccessToken,
    CreateSessionCookieRequest,
    CustomToken,
    ExchangeTokenRequest,
    IssueLocalTokenRequest,
    Jwks,
    ListRevocationsResponse,
    RefreshTokenRequest,
    RevokeTokenRequest,
    SessionCookie,
    SubjectTokenType,
    TokenResponse,
)
from services.kit.authorization import Caller, CallingApp, Public
from services.kit.clock import Clock
from services.kit.contract import Empty
from services.kit.errors import ErrorCode, RpcError
from services.kit.rpc import RpcRouter

JWKS_PATH: Final = "/.well-known/jwks.json"
JWKS_CACHE: Final = "public, max-age=10"
SHORT: Final = timedelta(minutes=10)
FIREBASE_TOKENS: Final = {
    SubjectTokenType.FIREBASE_ID_TOKEN: FirebaseTokenKind.ID_TOKEN,
    SubjectTokenType.FIREBASE_SESSION_COOKIE: FirebaseTokenKind.SESSION_COOKIE,
}

rpc = RpcRouter(TOKEN_SERVICE)
public = APIRouter()


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
        scopes = " ".join(request.scopes or USER_SCOPES)
        ttl = timedelta(seconds=request.ttl_seconds)
        return await self._token(request.user_id, request.email, scopes, ttl)

    async def for_user(self, user_id: str, email: str) -> TokenResponse:
        """A short token for somebody who has signed in."""
        scope = " ".join(USER_SCOPES)
        token = await self._token(user_id, email, scope, SHORT)
        return TokenResponse(
            access_token=token.access_token, expires_in=int(SHORT.total_seconds()), scope=scope
        )

    async def _token(self, user_id: str, email: str, scope: str, ttl: timedelta) -> AccessToken:
        now = self.clock()
        key = signing_key(await self.keys.all(), now)
        if key is None:
            raise RpcError(ErrorCode.UNAVAILABLE, "There is no signing key yet; try again.")
        expires = (now + ttl).replace(microsecond=0)
        claims = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": user_id,
            "email": email,
            "scope": scope,
            "iat": int(now.timestamp()),
            "nbf": int(now.timestamp()),
            "exp": int(expires.timestamp()),
            "jti": secrets.token_hex(16),
        }
        return AccessToken(access_token=self.forge.sign(key, claims), expires_at=expires)

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


def provide(app: FastAPI, issuer: Issuer) -> None:
    """Hand the routes what they work with."""
    app.state.issuer = issuer


async def _issuer(request: Request) -> Issuer:
    issuer: Issuer = request.app.state.issuer
    return issuer


With = Annotated[Issuer, Depends(_issuer)]


@rpc.method
async def issue_local_token(
    request: IssueLocalTokenRequest, _: CallingApp, using: With
) -> AccessToken:
    """A token for a local user."""
    return await using.issue(request)


@rpc.method
async def rotate_key(request: Empty, _: CallingApp, using: With) -> Jwks:
    """Begin signing with a new key soon; the key set already shows it."""
    del request
    await using.rotate()
    return await using.published()


@public.get(JWKS_PATH, include_in_schema=False)
async def jwks(using: With) -> Response:
    """The public keys (RFC 7517)."""
    headers = {"cache-control": JWKS_CACHE}
    return Response((await using.published()).to_json(), 200, headers, "application/json")


@rpc.method
async def exchange_token(
    request: ExchangeTokenRequest, _: Public, using: With, firebase: WithFirebase
) -> TokenResponse:
    """Trade a key or a sign-in for an access token."""
    kind = FIREBASE_TOKENS.get(request.subject_token_type)
    if kind is None:
        raise RpcError(ErrorCode.UNIMPLEMENTED, "Not yet.")
    user = await require(firebase).sign_in(kind, request.subject_token)
    return await using.for_user(user.user_id, user.email or "")


@rpc.method
async def refresh_token(request: RefreshTokenRequest, _: Public) -> TokenResponse:
    """Trade a refresh token for the next pair."""
    raise RpcError(ErrorCode.UNIMPLEMENTED, "Not yet.")


@rpc.method
async def revoke_token(request: RevokeTokenRequest, _: Public) -> Empty:
    """Sign out: end the session of a token."""
    raise RpcError(ErrorCode.UNIMPLEMENTED, "Not yet.")


@rpc.method
async def create_session_cookie(
    request: CreateSessionCookieRequest, _: Public, firebase: WithFirebase
) -> SessionCookie:
    """Trade a Firebase ID token for a session cookie."""
    return await require(firebase).session_cookie(request)


@rpc.method
async def create_custom_token(
    request: Empty, caller: Caller, firebase: WithFirebase
) -> CustomToken:
    """Make a Firebase custom token for the caller."""
    del request
    return await require(firebase).custom_token(caller)


@rpc.method
async def list_revocations(request: Empty, _: CallingApp) -> ListRevocationsResponse:
    """List the tokens that no longer count."""
    raise RpcError(ErrorCode.UNIMPLEMENTED, "Not yet.")
