"""Caller identity from the headers that the edge or another trusted app sets."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from fastapi import Request

from services.kit.errors import ErrorCode, RpcError
from services.kit.http.dependencies import get_dependency

USER_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@|:-]{0,127}")


@dataclass(frozen=True, slots=True)
class TrustedApps:
    """The app-id whose identity headers are trusted, and the permitted app-ids by internal method's path."""

    edge: str
    callers: Mapping[str, Collection[str]]


@dataclass(frozen=True, slots=True)
class CallerIdentity:
    """A user that the edge authenticated, by token or by the API key `key_id`."""

    user_id: str
    email: str
    scopes: frozenset[str]
    key_id: str | None = None


def caller_of(request: Request) -> CallerIdentity:
    """The caller of a request.

    Raises:
        RpcError: UNAUTHENTICATED when the identity headers are absent, empty, repeated, malformed, or sent by an
            untrusted app.
    """
    require_trusted_app(request)
    user_id = _single_header(request, "x-user-id")
    if not USER_ID.fullmatch(user_id):
        raise unauthenticated()
    email, scopes, key_id = (
        _optional_header(request, name) for name in ("x-user-email", "x-scopes", "x-key-id")
    )
    return CallerIdentity(user_id, email, frozenset(scopes.split()), key_id or None)


def require_trusted_app(request: Request) -> None:
    """UNAUTHENTICATED unless a trusted app made the call."""
    if not is_edge(request):
        raise unauthenticated()


def is_edge(request: Request) -> bool:
    """Whether the edge made the call."""
    return calling_app(request) == get_dependency(request.app, TrustedApps).edge


def calling_app(request: Request) -> str:
    """The app-id of the calling sidecar; verified only where sidecars use mTLS."""
    values = request.headers.getlist("dapr-caller-app-id")
    return values[0] if len(values) == 1 else ""


def _single_header(request: Request, name: str) -> str:
    values = request.headers.getlist(name)
    if len(values) != 1 or "," in values[0]:
        raise unauthenticated()
    return values[0]


def _optional_header(request: Request, name: str) -> str:
    values = request.headers.getlist(name)
    if len(values) > 1:
        raise unauthenticated()
    return "".join(values)


def unauthenticated() -> RpcError:
    """The error for every kind of invalid identity."""
    return RpcError(ErrorCode.UNAUTHENTICATED, "The call carries no valid identity.")
