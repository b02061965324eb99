"""Access tokens: `yocaso.auth.v1.TokenService`."""

from typing import Annotated, Any, Final

from pydantic import Field, StringConstraints

from services.kit.contract import Empty, Message, RpcMethod, RpcService, Timestamp
from services.kit.errors import ErrorCode

UserId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@|:-]{0,127}$")]
Email = Annotated[str, StringConstraints(pattern=r"^[^@\s]{1,64}@[^@\s]{1,255}$")]
Scope = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_.:-]{0,63}$")]


class IssueLocalTokenRequest(Message):
    """Asks for a token of a local user; refused in production."""

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


TOKEN_SERVICE: Final = RpcService(
    "yocaso.auth.v1.TokenService",
    app_id="auth",
    summary="Access tokens and the keys that verify them.",
    methods=(
        RpcMethod(
            "IssueLocalToken",
            IssueLocalTokenRequest,
            AccessToken,
            "Issue a token for a local user",
            raises=(ErrorCode.INVALID_ARGUMENT, ErrorCode.PERMISSION_DENIED),
            internal=True,
        ),
        RpcMethod(
            "RotateKey",
            Empty,
            Jwks,
            "Begin signing with a new key; the old one verifies until its tokens are over",
            raises=(ErrorCode.UNAVAILABLE,),
            internal=True,
        ),
    ),
)
