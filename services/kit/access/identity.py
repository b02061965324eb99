"""Caller identity from the headers that the edge, or another app that acts for a user, sets."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

import structlog
from fastapi import Request
from starlette.types import Scope

from services.kit.errors import ErrorCode, RpcError
from services.kit.http.dependencies import get_dependency

log = structlog.get_logger()

ACTING_CALLER: Final = "acting_caller"
USER_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@|:-]{0,127}")


@dataclass(frozen=True, slots=True)
class TrustedApps:
    """The edge's app-id, and the app-ids that may call a method, by its path.

    The identity headers of both are trusted: of the edge for every method, of another app for those that it may call.
    """

    edge: str
    callers: Mapping[str, Collection[str]]

    def trusts(self, app_id: str, path: str) -> bool:
        """Whether an app may say for which user it calls a method."""
        return app_id == self.edge or self.may_call(app_id, path)

    def may_call(self, app_id: str, path: str) -> bool:
        """Whether an app is named as caller of a method."""
        return app_id in self.callers.get(path, ())


@dataclass(frozen=True, slots=True)
class CallerIdentity:
    """A user that the edge authenticated, by token or by the API key `key_id`, or for whom the app `app` calls."""

    user_id: str
    email: str
    scopes: frozenset[str]
    key_id: str | None = None
    app: str | None = None

    @property
    def audit_details(self) -> dict[str, str]:
        """Details of an audit event that name the app which called for the user, if one did."""
        return {"app": self.app} if self.app else {}


def caller_of(request: Request) -> CallerIdentity:
    """The caller of a request.

    Raises:
        RpcError: UNAUTHENTICATED when the identity headers are absent, empty, repeated, malformed, or sent by an
            untrusted app; from another app than the edge also without `x-scopes`.
    """
    app = require_trusted_app(request)
    user_id = _single_header(request, "x-user-id")
    if not USER_ID.fullmatch(user_id):
        raise unauthenticated()
    if is_edge(request):
        email, scopes, key_id = (
            _optional_header(request, name) for name in ("x-user-email", "x-scopes", "x-key-id")
        )
        return CallerIdentity(user_id, _utf8(email), frozenset(scopes.split()), key_id or None)
    scopes = _single_header(request, "x-scopes")
    email, key_id = (
        _single_header(request, name) if name in request.headers else ""
        for name in ("x-user-email", "x-key-id")
    )
    caller = CallerIdentity(user_id, _utf8(email), frozenset(scopes.split()), key_id or None, app)
    request.scope[ACTING_CALLER] = caller
    return caller


def acting_caller(scope: Scope) -> CallerIdentity | None:
    """The caller of a request that an app made for a user, once `caller_of` has read it."""
    return scope.get(ACTING_CALLER)


def require_trusted_app(request: Request) -> str:
    """The calling app's id; UNAUTHENTICATED unless it is the edge or named as caller of the method."""
    app, path = calling_app(request), request.scope.get("path", "")
    if not get_dependency(request.app, TrustedApps).trusts(app, path):
        log.warning("access.app_refused", caller=app[:64], path=path)
        raise unauthenticated()
    return app


def is_edge(request: Request) -> bool:
    """Whether the edge made the call."""
    return calling_app(request) == get_dependency(request.app, TrustedApps).edge


def calling_app(request: Request) -> str:
    """The app-id of the calling sidecar; verified only where sidecars use mTLS."""
    values = request.headers.getlist("dapr-caller-app-id")
    return values[0] if len(values) == 1 else ""


def refuse_invocation(request: Request, message: str) -> None:
    """PERMISSION_DENIED for a service invocation on a path of Dapr's deliveries, which come without a calling app."""
    if calling_app(request):
        raise RpcError(ErrorCode.PERMISSION_DENIED, message)


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


def _utf8(header: str) -> str:
    """The text of a UTF-8 header, which Starlette reads as Latin-1."""
    return header.encode("latin-1").decode(errors="replace")


def unauthenticated() -> RpcError:
    """The error for every kind of invalid identity."""
    return RpcError(ErrorCode.UNAUTHENTICATED, "The call carries no valid identity.")
