"""`yocaso.auth.v1.TokenService`, and the public key set."""

from datetime import timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Depends
from fastapi.responses import Response

from services.auth.domain.firebase import FirebaseTokenKind
from services.auth.rpc.firebase import WithFirebase, require
from services.auth.rpc.issuer import Issuer
from services.auth.rpc.sessions import SignIns
from services.contracts.auth.tokens import (
    JWKS_PATH,
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
from services.kit.access.authorization import Caller, CallingApp, Public
from services.kit.contract import Empty
from services.kit.http.dependencies import provided
from services.kit.http.rpc import RpcRouter

JWKS_CACHE: Final = "public, max-age=10"
SHORT: Final = timedelta(minutes=10)
FIREBASE_TOKENS: Final = {
    SubjectTokenType.FIREBASE_ID_TOKEN: FirebaseTokenKind.ID_TOKEN,
    SubjectTokenType.FIREBASE_SESSION_COOKIE: FirebaseTokenKind.SESSION_COOKIE,
}

rpc = RpcRouter(TOKEN_SERVICE)
public = APIRouter()


With = Annotated[Issuer, Depends(provided(Issuer))]
WithSignIns = Annotated[SignIns, Depends(provided(SignIns))]


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
    request: ExchangeTokenRequest, _: Public, using: WithSignIns, firebase: WithFirebase
) -> TokenResponse:
    """Trade a key or a sign-in for an access token."""
    return await using.exchange(request, firebase)


@rpc.method
async def refresh_token(
    request: RefreshTokenRequest, _: Public, using: WithSignIns, firebase: WithFirebase
) -> TokenResponse:
    """Trade a refresh token for the next pair."""
    return await using.refresh(request.refresh_token, firebase)


@rpc.method
async def revoke_token(request: RevokeTokenRequest, _: Public, using: WithSignIns) -> Empty:
    """Sign out: end the session of a token."""
    await using.revoke(request.token)
    return Empty()


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
async def list_revocations(
    request: Empty, _: CallingApp, using: WithSignIns
) -> ListRevocationsResponse:
    """List the tokens that no longer count."""
    del request
    return await using.revoked()
