"""Who may call a method: the typed dependencies that every route has, and what they ask.

A route names one of them in its signature. What is refused is refused before the handler runs: UNAUTHENTICATED
without an identity, PERMISSION_DENIED without the scope that the contract names, RATE_LIMITED past the user's rate,
NOT_FOUND for an object that the caller may not even see, PERMISSION_DENIED for one that it may see but not do this
with. UNAVAILABLE, never a yes, while nobody can tell.
"""

import asyncio
from dataclasses import dataclass
from typing import Annotated, Final, Protocol

import structlog
from fastapi import Depends, Request
from typing_extensions import override

from services.kit.access.cache import AccessCache, AccessCheck
from services.kit.access.identity import (
    CallerIdentity,
    TrustedApps,
    caller_of,
    calling_app,
    require_vouched,
)
from services.kit.access.limits import RateLimiter
from services.kit.errors import ErrorCode, RpcError, not_found
from services.kit.http.dependencies import taken
from services.kit.http.rpc import message_of, method_of

MAX_RECORDING: Final = 1000

log = structlog.get_logger()


class Denials(Protocol):
    """Is told who was denied what."""

    async def denied(self, caller: CallerIdentity, relation: str, target: str) -> None:
        """Record it; a failure to do so changes nothing for the caller."""
        ...


class DenialAudit:
    """`Denials` that are written down beside the call, not before its answer; `close` finishes what is under way."""

    def __init__(self) -> None:
        self._recording: set[asyncio.Task[None]] = set()

    async def denied(self, caller: CallerIdentity, relation: str, target: str) -> None:
        """Begin to write it down; under a flood only a log line is left."""
        if len(self._recording) >= MAX_RECORDING:
            log.warning("access.denial_not_recorded")
            return
        task = asyncio.create_task(self._try(caller, relation, target))
        self._recording.add(task)
        task.add_done_callback(self._recording.discard)

    async def close(self) -> None:
        """Finish."""
        await asyncio.gather(*self._recording, return_exceptions=True)

    async def record(self, caller: CallerIdentity, relation: str, target: str) -> None:
        """Write it into the audit log."""
        raise NotImplementedError

    async def _try(self, caller: CallerIdentity, relation: str, target: str) -> None:
        try:
            await self.record(caller, relation, target)
        except RpcError as error:
            log.warning("access.denial_not_recorded", code=error.code)


@dataclass(frozen=True, slots=True)
class AccessControl:
    """What the dependencies of an app's routes ask."""

    cache: AccessCache
    limiter: RateLimiter
    denials: Denials

    async def require(
        self, caller: CallerIdentity, relation: str, target: str, *, seen_by: str = "viewer"
    ) -> None:
        """The caller has the relation to the target: `conversation:conv_…`.

        Raises:
            RpcError: NOT_FOUND, PERMISSION_DENIED, UNAVAILABLE. What is missing and what is foreign cost the same.
        """
        if await self.cache.allows(AccessCheck(caller.user_id, relation, target)):
            return
        kind, _, _ = target.partition(":")
        seen = seen_by != relation and await self.cache.allows(
            AccessCheck(caller.user_id, seen_by, target)
        )
        await self.denials.denied(caller, relation, target)
        if not seen:
            raise not_found(kind)
        raise RpcError(
            ErrorCode.PERMISSION_DENIED, f"You may see this {kind}, but not do that with it."
        )


class Authorization:
    """Lets a call through, or refuses it. Every route has one; `tests/contract` knows them by this class."""

    async def __call__(self, request: Request) -> CallerIdentity:
        """The caller, who may.

        Raises:
            RpcError: see the module.
        """
        raise NotImplementedError


class SignedIn(Authorization):
    """A signed-in user whose token has the method's scope."""

    @override
    async def __call__(self, request: Request) -> CallerIdentity:
        """The caller."""
        caller = caller_of(request)
        control = access_control(request)
        await control.limiter.require(caller.user_id)
        scope = method_of(request).scope
        if scope not in caller.scopes:
            await control.denials.denied(caller, f"scope {scope}", request.url.path)
            raise RpcError(
                ErrorCode.PERMISSION_DENIED, f"The token does not have the scope {scope}."
            )
        return caller


class Permitted(SignedIn):
    """A signed-in user who has a relation to the object that a field of the request names.

    `seen_by` is the relation that lets somebody know that the object exists.
    """

    def __init__(
        self, relation: str, field: str, *, kind: str | None = None, seen_by: str = "viewer"
    ) -> None:
        self._relation = relation
        self._field = field
        self._kind = kind
        self._seen_by = seen_by

    @override
    async def __call__(self, request: Request) -> CallerIdentity:
        """The caller."""
        caller = await super().__call__(request)
        named: str = getattr(await message_of(request), self._field)
        target = f"{self._kind}:{named}" if self._kind else named
        await access_control(request).require(caller, self._relation, target, seen_by=self._seen_by)
        return caller


class Anybody(Authorization):
    """Anybody who comes through an app that vouches for users, signed in or not."""

    @override
    async def __call__(self, request: Request) -> CallerIdentity:
        """Nobody in particular."""
        require_vouched(request)
        return CallerIdentity("", "", frozenset())


class FromApp(Authorization):
    """One of the apps whose manifest names the method."""

    @override
    async def __call__(self, request: Request) -> CallerIdentity:
        """The app, by its id."""
        app = calling_app(request)
        if app not in taken(request.app, TrustedApps).callers.get(method_of(request).path, ()):
            raise RpcError(ErrorCode.PERMISSION_DENIED, "This app may not call the method.")
        return CallerIdentity(app, "", frozenset())


def access_control(request: Request) -> AccessControl:
    """The access control of the app that serves the request."""
    return taken(request.app, AccessControl)


Caller = Annotated[CallerIdentity, Depends(SignedIn())]
"""A signed-in user with the method's scope, for what is the caller's own by construction."""
Public = Annotated[CallerIdentity, Depends(Anybody())]
"""A method without sign-in."""
CallingApp = Annotated[CallerIdentity, Depends(FromApp())]
"""A method for other apps."""
