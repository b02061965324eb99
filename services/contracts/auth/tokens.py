"""Sign-in and access tokens: `yocaso.auth.v1.TokenService`."""

from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import Field, StringConstraints

from services.contracts.auth.accounts import ACCOUNT_WRITE
from services.kit.contract import Empty, Message, RpcService, Timestamp
from services.kit.errors import ErrorCode

UserId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@|:-]{0,127}$")]
Email = Annotated[str, StringConstraints(pattern=r"^[^@\s]{1,64}@[^@\s]{1,255}$")]
Scope = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_.:-]{0,63}$")]
"""A permission carried by a token; a method requires at most one."""
Credential = Annotated[str, StringConstraints(min_length=1, max_length=8192)]

JWKS_PATH: Final = "/.well-known/jwks.json"
TOKEN_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105 - a name of RFC 8693
ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105


class SubjectTokenType(StrEnum):
    """Token types accepted in an exchange (RFC 8693, section 3)."""

    API_KEY = "urn:yocaso:params:oauth:token-type:api-key"
    FIREBASE_ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"  # noqa: S105
    FIREBASE_SESSION_COOKIE = "urn:yocaso:params:oauth:token-type:firebase-session-cookie"


class ExchangeTokenRequest(Message):
    """Exchanges an API key, a Firebase ID token or a Firebase session cookie for an access token (RFC 8693).

    `scope` limits the token to these space-separated scopes; absent, it gets every scope of the subject.
    """

    grant_type: Annotated[str, StringConstraints(pattern=f"^{TOKEN_EXCHANGE}$")] = TOKEN_EXCHANGE
    subject_token: Annotated[Credential, Field(examples=["eyJhbGciOiJSUzI1NiJ9.e30.c2lnbmF0dXJl"])]
    subject_token_type: Annotated[
        SubjectTokenType, Field(examples=["urn:ietf:params:oauth:token-type:id_token"])
    ]
    scope: Annotated[str, StringConstraints(max_length=1024)] | None = None


class TokenResponse(Message):
    """An access token (JWT, RS256) valid for `expiresIn` seconds, and a single-use refresh token.

    `refreshToken` is absent for an API key: exchange the key again.
    """

    access_token: str
    issued_token_type: str = ACCESS_TOKEN
    token_type: str = "Bearer"  # noqa: S105
    expires_in: int
    scope: str
    refresh_token: str | None = None


class RefreshTokenRequest(Message):
    """Exchanges a refresh token for a new pair; reusing one ends its session."""

    refresh_token: Annotated[
        str,
        Field(pattern=r"^yr_[A-Za-z0-9]{20,120}$", examples=["yr_anExampleThatIsNobodysSession"]),
    ]


class RevokeTokenRequest(Message):
    """Ends the session of a refresh or access token (RFC 7009); an unknown token is no error."""

    token: Annotated[Credential, Field(examples=["yr_anExampleThatIsNobodysSession"])]


class CreateSessionCookieRequest(Message):
    """Creates a Firebase session cookie, valid for 5 minutes to 14 days, from a recent ID token."""

    id_token: Annotated[Credential, Field(examples=["eyJhbGciOiJSUzI1NiJ9.e30.c2lnbmF0dXJl"])]
    ttl_seconds: Annotated[int, Field(ge=300, le=1_209_600)] = 432_000


class SessionCookie(Message):
    """A cookie value that the caller's web server must set HttpOnly, Secure and SameSite; `expiresIn` is in seconds."""

    session_cookie: str
    expires_in: int


class CustomToken(Message):
    """A Firebase custom token for `signInWithCustomToken`, valid for at most one hour."""

    custom_token: str


class IssueLocalTokenRequest(Message):
    """Issues a token for a local user; refused in production. Without `scopes` it has every user scope."""

    user_id: UserId
    email: Email
    scopes: Annotated[list[Scope], Field(max_length=32)] = Field(default_factory=list)
    ttl_seconds: Annotated[int, Field(ge=60, le=604_800)] = 86_400


class AccessToken(Message):
    """A bearer token (JWT, RS256)."""

    access_token: str
    expires_at: Timestamp


class Jwks(Message):
    """A JSON Web Key Set (RFC 7517): the signing key, and earlier keys whose tokens may still be valid."""

    keys: list[dict[str, Any]]


class Revocation(Message):
    """Revokes tokens with this value of the claim `sid`, `key_id` or `sub`, issued up to and including `issuedUntil`.

    Drop it at `expiresAt`, when the last such token has expired. Tokens carry whole seconds of issue, so a token issued
    later in the same second is revoked too.
    """

    claim: Annotated[str, StringConstraints(pattern=r"^(sid|key_id|sub)$")]
    value: str
    issued_until: Timestamp
    expires_at: Timestamp


class ListRevocationsResponse(Message):
    """Every revocation that has not expired."""

    revocations: list[Revocation]


_SIGN_IN_ERRORS = (
    ErrorCode.INVALID_ARGUMENT,
    ErrorCode.UNAUTHENTICATED,
    ErrorCode.PERMISSION_DENIED,
    ErrorCode.RATE_LIMITED,
    ErrorCode.UNAVAILABLE,
)

TOKEN_SERVICE: Final = RpcService(
    "yocaso.auth.v1.TokenService", "Sign-in, access tokens and signing keys."
)
EXCHANGE_TOKEN: Final = TOKEN_SERVICE.unary(
    "ExchangeToken",
    ExchangeTokenRequest,
    TokenResponse,
    "Exchange an API key or a Firebase sign-in for an access token",
    raises=(*_SIGN_IN_ERRORS, ErrorCode.FAILED_PRECONDITION, ErrorCode.BUDGET_EXCEEDED),
    public=True,
    waits=True,
)
REFRESH_TOKEN: Final = TOKEN_SERVICE.unary(
    "RefreshToken",
    RefreshTokenRequest,
    TokenResponse,
    "Exchange a refresh token for a new pair",
    raises=_SIGN_IN_ERRORS,
    public=True,
    waits=True,
)
REVOKE_TOKEN: Final = TOKEN_SERVICE.unary(
    "RevokeToken",
    RevokeTokenRequest,
    Empty,
    "Sign out: end the session of a token",
    raises=(ErrorCode.INVALID_ARGUMENT, ErrorCode.UNAVAILABLE),
    public=True,
)
CREATE_SESSION_COOKIE: Final = TOKEN_SERVICE.unary(
    "CreateSessionCookie",
    CreateSessionCookieRequest,
    SessionCookie,
    "Exchange a Firebase ID token for a session cookie",
    raises=(*_SIGN_IN_ERRORS, ErrorCode.FAILED_PRECONDITION),
    public=True,
    waits=True,
)
CREATE_CUSTOM_TOKEN: Final = TOKEN_SERVICE.unary(
    "CreateCustomToken",
    Empty,
    CustomToken,
    "Create a Firebase custom token for the caller",
    raises=(
        ErrorCode.UNAUTHENTICATED,
        ErrorCode.PERMISSION_DENIED,
        ErrorCode.FAILED_PRECONDITION,
        ErrorCode.UNAVAILABLE,
    ),
    scope=ACCOUNT_WRITE,
    waits=True,
)
ISSUE_LOCAL_TOKEN: Final = TOKEN_SERVICE.unary(
    "IssueLocalToken",
    IssueLocalTokenRequest,
    AccessToken,
    "Issue a token for a local user",
    raises=(ErrorCode.INVALID_ARGUMENT, ErrorCode.PERMISSION_DENIED),
    internal=True,
)
ROTATE_KEY: Final = TOKEN_SERVICE.unary(
    "RotateKey",
    Empty,
    Jwks,
    "Rotate the signing key; the old one verifies until its tokens expire",
    raises=(ErrorCode.UNAVAILABLE,),
    internal=True,
)
LIST_REVOCATIONS: Final = TOKEN_SERVICE.unary(
    "ListRevocations",
    Empty,
    ListRevocationsResponse,
    "List token revocations",
    raises=(ErrorCode.UNAVAILABLE,),
    internal=True,
)
