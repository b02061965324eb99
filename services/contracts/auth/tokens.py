"""Access tokens: `yocaso.auth.v1.TokenService`."""

from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import Field, StringConstraints

from services.contracts.auth.accounts import ACCOUNT_WRITE
from services.kit.contract import Empty, Message, RpcService, Timestamp
from services.kit.errors import ErrorCode

UserId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@|:-]{0,127}$")]
Email = Annotated[str, StringConstraints(pattern=r"^[^@\s]{1,64}@[^@\s]{1,255}$")]
Scope = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_.:-]{0,63}$")]
"""What a token may be used for; a method of a contract names the one scope that it needs."""
Credential = Annotated[str, StringConstraints(min_length=1, max_length=8192)]

JWKS_PATH: Final = "/.well-known/jwks.json"
TOKEN_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105 - a name of RFC 8693
ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105


class SubjectTokenType(StrEnum):
    """What is exchanged (RFC 8693, section 3)."""

    API_KEY = "urn:yocaso:params:oauth:token-type:api-key"
    FIREBASE_ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"  # noqa: S105
    FIREBASE_SESSION_COOKIE = "urn:yocaso:params:oauth:token-type:firebase-session-cookie"


class ExchangeTokenRequest(Message):
    """Trades an API key, a Firebase ID token or a Firebase session cookie for an access token (RFC 8693).

    `scope` narrows what the token may do: names with spaces between them; absent, all that the subject may.
    """

    grant_type: Annotated[str, StringConstraints(pattern=f"^{TOKEN_EXCHANGE}$")] = TOKEN_EXCHANGE
    subject_token: Credential
    subject_token_type: SubjectTokenType
    scope: Annotated[str, StringConstraints(max_length=1024)] | None = None


class TokenResponse(Message):
    """An access token (JWT, RS256) of `expiresIn` seconds, and a refresh token that works once.

    `refreshToken` is absent where the subject was an API key: exchange the key again.
    """

    access_token: str
    issued_token_type: str = ACCESS_TOKEN
    token_type: str = "Bearer"  # noqa: S105
    expires_in: int
    scope: str
    refresh_token: str | None = None


class RefreshTokenRequest(Message):
    """Trades a refresh token for the next pair; one that is used twice ends its session."""

    refresh_token: Annotated[str, StringConstraints(pattern=r"^yr_[A-Za-z0-9]{20,120}$")]


class RevokeTokenRequest(Message):
    """Ends the session of a refresh token or an access token (RFC 7009); an unknown one is no error."""

    token: Credential


class CreateSessionCookieRequest(Message):
    """Asks for a Firebase session cookie for a fresh ID token; between 5 minutes and 14 days."""

    id_token: Credential
    ttl_seconds: Annotated[int, Field(ge=300, le=1_209_600)] = 432_000


class SessionCookie(Message):
    """A cookie value, to be set HttpOnly, Secure and SameSite by the caller's own web server."""

    session_cookie: str
    expires_in: int


class CustomToken(Message):
    """A Firebase custom token of at most an hour, for `signInWithCustomToken`."""

    custom_token: str


class IssueLocalTokenRequest(Message):
    """Asks for a token of a local user; refused in production. Without scopes it may do all that a user may."""

    user_id: UserId
    email: Email
    scopes: Annotated[list[Scope], Field(max_length=32)] = Field(default_factory=list)
    ttl_seconds: Annotated[int, Field(ge=60, le=604_800)] = 86_400


class AccessToken(Message):
    """A bearer token (JWT, RS256)."""

    access_token: str
    expires_at: Timestamp


class Jwks(Message):
    """A JSON Web Key Set (RFC 7517): the key that signs now, and those whose tokens may still be valid."""

    keys: list[dict[str, Any]]


class Revocation(Message):
    """Tokens that no longer count: those with this claim (`sid`, `key_id` or `sub`) issued up to `issuedUntil`.

    It can be forgotten at `expiresAt`, when the last such token is over. Tokens say their second of issue: one that
    was issued later in that same second is over too.
    """

    claim: Annotated[str, StringConstraints(pattern=r"^(sid|key_id|sub)$")]
    value: str
    issued_until: Timestamp
    expires_at: Timestamp


class ListRevocationsResponse(Message):
    """Every revocation that still matters."""

    revocations: list[Revocation]


_SIGN_IN = (
    ErrorCode.INVALID_ARGUMENT,
    ErrorCode.UNAUTHENTICATED,
    ErrorCode.PERMISSION_DENIED,
    ErrorCode.RATE_LIMITED,
    ErrorCode.UNAVAILABLE,
)

TOKEN_SERVICE: Final = RpcService(
    "yocaso.auth.v1.TokenService", "Sign-in, access tokens, and the keys that verify them."
)
EXCHANGE_TOKEN: Final = TOKEN_SERVICE.unary(
    "ExchangeToken",
    ExchangeTokenRequest,
    TokenResponse,
    "Trade a key or a sign-in for an access token",
    raises=(*_SIGN_IN, ErrorCode.FAILED_PRECONDITION, ErrorCode.BUDGET_EXCEEDED),
    public=True,
    waits=True,
)
REFRESH_TOKEN: Final = TOKEN_SERVICE.unary(
    "RefreshToken",
    RefreshTokenRequest,
    TokenResponse,
    "Trade a refresh token for the next pair",
    raises=_SIGN_IN,
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
    "Trade a Firebase ID token for a session cookie",
    raises=(*_SIGN_IN, ErrorCode.FAILED_PRECONDITION),
    public=True,
    waits=True,
)
CREATE_CUSTOM_TOKEN: Final = TOKEN_SERVICE.unary(
    "CreateCustomToken",
    Empty,
    CustomToken,
    "Make a Firebase custom token for the caller",
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
    "Begin signing with a new key; the old one verifies until its tokens are over",
    raises=(ErrorCode.UNAVAILABLE,),
    internal=True,
)
LIST_REVOCATIONS: Final = TOKEN_SERVICE.unary(
    "ListRevocations",
    Empty,
    ListRevocationsResponse,
    "List the tokens that no longer count",
    raises=(ErrorCode.UNAVAILABLE,),
    internal=True,
)
