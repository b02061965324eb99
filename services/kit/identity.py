"""Who calls: the identity that the edge, or another app that may, vouches for."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Request

from services.kit.errors import ErrorCode, RpcError

USER_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@|:-]{0,127}")
TRUSTED_APPS_STATE: Final = "identity_callers"


@dataclass(frozen=True, slots=True)
class CallerIdentity:
    """A user, as verified by the edge."""

    user_id: str
    email: str
    scopes: frozenset[str]


def caller_of(request: Request) -> CallerIdentity:
    """The caller of a request.

    Raises:
        RpcError: UNAUTHENTICATED when the identity is absent, empty, repeated, malformed, or sent by an app
            that may not vouch for users.
    """
    trusted: Collection[str] = getattr(request.app.state, TRUSTED_APPS_STATE)
    if request.headers.get("dapr-caller-app-id") not in trusted:
        raise _unauthenticated()
    user_id = _only(request, "x-user-id")
    if not USER_ID.fullmatch(user_id):
        raise _unauthenticated()
    email = request.headers.getlist("x-user-email")
    scopes = request.headers.getlist("x-scopes")
    if len(email) > 1 or len(scopes) > 1:
        raise _unauthenticated()
    return CallerIdentity(user_id, "".join(email), frozenset("".join(scopes).split()))


async def _caller(request: Request) -> CallerIdentity:
    return caller_of(request)  # a dependency that is not async costs a thread hop


Caller = Annotated[CallerIdentity, Depends(_caller)]
"""A route with this parameter is for signed-in users; one without it is public or internal."""


def _only(request: Request, name: str) -> str:
    values = request.headers.getlist(name)
    if len(values) != 1 or "," in values[0]:
        raise _unauthenticated()
    return values[0]


def _unauthenticated() -> RpcError:
    return RpcError(ErrorCode.UNAUTHENTICATED, "The call carries no valid identity.")
