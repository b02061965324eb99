"""Authorization of routes by typed dependencies; every route has one in its signature.

A call is refused before its handler runs: UNAUTHENTICATED without an identity, RATE_LIMITED over the user's rate,
PERMISSION_DENIED without the contract's scope, NOT_FOUND for an object that the caller cannot see, PERMISSION_DENIED
for one that it sees without the required relation, UNAVAILABLE when access cannot be checked.
"""

from dataclasses import dataclass
from typing import Annotated, Final

import structlog
from fastapi import Depends, Request
from typing_extensions import override

from services.kit.access.cache import AccessCache, AccessCheck
from services.kit.access.identity import (
    CallerIdentity,
    TrustedApps,
    caller_of,
    calling_app,
    require_trusted_app,
)
from services.kit.access.limits import RateLimiter
from services.kit.background import TaskSet
from services.kit.errors import ErrorCode, RpcError, not_found
from services.kit.http.dependencies import get_dependency
from services.kit.http.rpc import message_of, method_of

MAX_PENDING_DENIALS: Final = 1000
"""Bounds memory while the audit log is slow; further denials are only logged."""

log = structlog.get_logger()


class DenialAudit:
    """Records denied calls in an audit log, in the background: the caller does not wait for it."""

    def __init__(self) -> None:
        self._pending = TaskSet()

    def add(self, caller: CallerIdentity, relation: str, target: str) -> None:
        """Begin to record a denial; a failure is only logged."""
        if len(self._pending) >= MAX_PENDING_DENIALS:
            log.warning("access.denial_not_recorded")
            return
        self._pending.spawn(self._record_or_log(caller, relation, target))

    async def close(self) -> None:
        """Wait until the begun records are written."""
        await self._pending.close()

    async def record(self, caller: CallerIdentity, relation: str, target: str) -> None:
        """Write a denial to the audit log."""
        raise NotImplementedError

    async def _record_or_log(self, caller: CallerIdentity, relation: str, target: str) -> None:
        try:
            await self.record(caller, relation, target)
        except RpcError as error:
            log.warning("access.denial_not_recorded", code=error.code)


@dataclass(frozen=True, slots=True)
class AccessControl:
    """The access cache, rate limiter and denial audit of an app."""

    cache: AccessCache
    limiter: RateLimiter
    denials: DenialAudit

    async def require(
        self, caller: CallerIdentity, relation: str, target: str, *, visible_to: str = "viewer"
    ) -> None:
        """Require that the caller has a relation to the target: `document:…`.

        Raises:
            RpcError: NOT_FOUND, after the same checks for missing and for foreign objects, so that response times do
                not differ; PERMISSION_DENIED; UNAVAILABLE.
        """
        if await self.cache.allows(AccessCheck(caller.user_id, relation, target)):
            return
        kind, _, _ = target.partition(":")
        is_visible = visible_to != relation and await self.cache.allows(
            AccessCheck(caller.user_id, visible_to, target)
        )
        self.denials.add(caller, relation, target)
        if not is_visible:
            raise not_found(kind)
        raise RpcError(
            ErrorCode.PERMISSION_DENIED, f"You may see this {kind}, but not do that with it."
        )


class Authorization:
    """A dependency that authorizes a call. `tests/contract` requires one on every route."""

    async def __call__(self, request: Request) -> CallerIdentity:
        """The authorized caller.

        Raises:
            RpcError: see the module.
        """
        raise NotImplementedError


class SignedIn(Authorization):
    """A signed-in user whose token has the method's scope."""

    @override
    async def __call__(self, request: Request) -> CallerIdentity:
        caller = caller_of(request)
        control = access_control(request)
        await control.limiter.require(caller.user_id)
        scope = method_of(request).scope
        if scope not in caller.scopes:
            control.denials.add(caller, f"scope {scope}", request.url.path)
            raise RpcError(
                ErrorCode.PERMISSION_DENIED, f"The token does not have the scope {scope}."
            )
        return caller


class Permitted(SignedIn):
    """A signed-in user with a relation to the object that a field of the request names.

    Callers without the relation `visible_to` get NOT_FOUND.
    """

    def __init__(
        self, relation: str, field: str, *, kind: str | None = None, visible_to: str = "viewer"
    ) -> None:
        self._relation = relation
        self._field = field
        self._kind = kind
        self._visible_to = visible_to

    @override
    async def __call__(self, request: Request) -> CallerIdentity:
        caller = await super().__call__(request)
        named: str = getattr(await message_of(request), self._field)
        target = f"{self._kind}:{named}" if self._kind else named
        await access_control(request).require(
            caller, self._relation, target, visible_to=self._visible_to
        )
        return caller


class AnyCaller(Authorization):
    """Any caller through the edge, signed in or not, and apps whose manifest lists the method."""

    @override
    async def __call__(self, request: Request) -> CallerIdentity:
        require_trusted_app(request)
        return CallerIdentity("", "", frozenset())


class FromApp(Authorization):
    """An app whose manifest lists the method."""

    @override
    async def __call__(self, request: Request) -> CallerIdentity:
        """The app, by its id."""
        app, path = calling_app(request), method_of(request).path
        if not get_dependency(request.app, TrustedApps).may_call(app, path):
            log.warning("access.app_refused", caller=app[:64], path=path)
            raise RpcError(ErrorCode.PERMISSION_DENIED, "This app may not call the method.")
        return CallerIdentity(app, "", frozenset())


def access_control(request: Request) -> AccessControl:
    """The access control of the app that serves the request."""
    return get_dependency(request.app, AccessControl)


Caller = Annotated[CallerIdentity, Depends(SignedIn())]
"""For methods that only touch the caller's own objects: a signed-in user with the method's scope."""
Public = Annotated[CallerIdentity, Depends(AnyCaller())]
"""For methods without sign-in."""
CallingApp = Annotated[CallerIdentity, Depends(FromApp())]
"""For internal methods, called by other apps."""
