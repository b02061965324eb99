"""Who calls: the identity that the edge, or another app that may, vouches for."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from fastapi import Request

from services.kit.errors import ErrorCode, RpcError
from services.kit.http.dependencies import taken

USER_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@|:-]{0,127}")


@dataclass(frozen=True, slots=True)
class TrustedApps:
    """Whose word counts: the edge, which vouches for users, and by an internal method's path those that may call it."""

    edge: str
    callers: Mapping[str, Collection[str]]


@dataclass(frozen=True, slots=True)
class CallerIdentity:
    """A user, as verified by the edge; `key_id` where it is an API key that speaks for the user."""

    user_id: str
    email: str
    scopes: frozenset[str]
    key_id: str | None = None


def caller_of(request: Request) -> CallerIdentity:
    """The caller of a request.

    Raises:
        RpcError: UNAUTHENTICATED when the identity is absent, empty, repeated, malformed, or sent by an app
            that may not vouch for users.
    """
    require_vouched(request)
    user_id = _only(request, "x-user-id")
    if not USER_ID.fullmatch(user_id):
        raise unauthenticated()
    email, scopes, key_id = (
        _at_most_one(request, name) for name in ("x-user-email", "x-scopes", "x-key-id")
    )
    return CallerIdentity(user_id, email, frozenset(scopes.split()), key_id or None)


def require_vouched(request: Request) -> None:
    """UNAUTHENTICATED unless an app made the call that vouches for users."""
    if not is_edge(request):
        raise unauthenticated()


def is_edge(request: Request) -> bool:
    """Whether the edge made the call."""
    return calling_app(request) == taken(request.app, TrustedApps).edge


def calling_app(request: Request) -> str:
    """The app whose sidecar made the call; proven where sidecars speak mTLS, else claimed."""
    values = request.headers.getlist("dapr-caller-app-id")
    return values[0] if len(values) == 1 else ""


def _only(request: Request, name: str) -> str:
    values = request.headers.getlist(name)
    if len(values) != 1 or "," in values[0]:
        raise unauthenticated()
    return values[0]


def _at_most_one(request: Request, name: str) -> str:
    values = request.headers.getlist(name)
    if len(values) > 1:
        raise unauthenticated()
    return "".join(values)


def unauthenticated() -> RpcError:
    """The one answer to a call without a valid identity."""
    return RpcError(ErrorCode.UNAUTHENTICATED, "The call carries no valid identity.")
