"""`yocaso.auth.v1.TokenService`, and the JWKS."""

from typing import Annotated, Final

from fastapi import APIRouter, Depends
from fastapi.responses import Response

from services.auth.service.firebase import FirebaseService
from services.auth.service.tokens import TokenIssuer, TokenService
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
    TokenResponse,
)
from services.kit.access.authorization import Caller, CallingApp, Public
from services.kit.contract import Empty
from services.kit.http.dependencies import provided
from services.kit.http.rpc import RpcRouter

JWKS_CACHE: Final = "public, max-age=10"

rpc = RpcRouter(TOKEN_SERVICE)
public = APIRouter()

Deps = Annotated[TokenService, Depends(provided(TokenService))]
Issuer = Annotated[TokenIssuer, Depends(provided(TokenIssuer))]
Firebase = Annotated[FirebaseService, Depends(provided(FirebaseService))]


@public.get(JWKS_PATH, include_in_schema=False)
async def jwks(issuer: Issuer) -> Response:
    """The public keys (RFC 7517)."""
    headers = {"cache-control": JWKS_CACHE}
    return Response((await issuer.published()).to_json(), 200, headers, "application/json")


@rpc.method
async def issue_local_token(
    request: IssueLocalTokenRequest, _: CallingApp, issuer: Issuer
) -> AccessToken:
    return await issuer.issue_local(request)


@rpc.method
async def rotate_key(request: Empty, _: CallingApp, issuer: Issuer) -> Jwks:
    del request
    return await issuer.rotate()


@rpc.method
async def exchange_token(request: ExchangeTokenRequest, _: Public, deps: Deps) -> TokenResponse:
    return await deps.exchange(request)


@rpc.method
async def refresh_token(request: RefreshTokenRequest, _: Public, deps: Deps) -> TokenResponse:
    return await deps.refresh(request)


@rpc.method
async def revoke_token(request: RevokeTokenRequest, _: Public, deps: Deps) -> Empty:
    await deps.revoke(request)
    return Empty()


@rpc.method
async def create_session_cookie(
    request: CreateSessionCookieRequest, _: Public, firebase: Firebase
) -> SessionCookie:
    return await firebase.session_cookie(request)


@rpc.method
async def create_custom_token(request: Empty, caller: Caller, firebase: Firebase) -> CustomToken:
    del request
    return await firebase.custom_token(caller)


@rpc.method
async def list_revocations(request: Empty, _: CallingApp, deps: Deps) -> ListRevocationsResponse:
    del request
    return await deps.revoked()
