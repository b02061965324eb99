"""Who may call a method: the typed dependencies that every route has, and what they ask.

A route names one of them in its signature. What is refused is refused before the handler runs: UNAUTHENTICATED
without an identity, PERMISSION_DENIED without the scope that the contract names, RATE_LIMITED past the user's rate,
NOT_FOUND for an object that the caller may not even see, PERMISSION_DENIED for one that it may see but not do this
with. UNAVAILABLE, never a yes, while nobody can tell.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Final, Protocol

import structlog
from fastapi import Depends, Request
from typing_extensions import override

from services.kit.errors import ErrorCode, RpcError, not_found
from services.kit.flights import Flights
from services.kit.identity import CallerIdentity, caller_of, calling_app, unauthenticated
from services.kit.limits import RateLimiter
from services.kit.rpc import message_of, method_of
from services.kit.signals import Signals

GUARD_STATE: Final = "guard"
CHANGED: Final = "access.changed"
"""The signal that facts have changed somewhere: what was remembered is forgotten at once."""
REMEMBERED: Final = timedelta(seconds=5)
"""How long a yes is believed where that signal was lost; a no is never remembered."""
RENEWED: Final = timedelta(seconds=1)
"""How long before the end of its moment a yes that is used is asked for anew."""
MAX_REMEMBERED: Final = 20_000
MAX_RECORDING: Final = 1000

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Question:
    """May this user do this with this object? `relation` and `object` are OpenFGA's: `editor`, `conversation:…`."""

    user_id: str
    relation: str
    object: str


class Judge(Protocol):
    """Answers from the facts."""

    async def judge(self, question: Question) -> bool:
        """By the facts with every acknowledged change. UNAVAILABLE where it cannot tell."""
        ...


class Denials(Protocol):
    """Is told who was denied what."""

    async def denied(self, caller: CallerIdentity, relation: str, target: str) -> None:
        """Record it; a failure to do so changes nothing for the caller."""
        ...


class RecordedDenials:
    """`Denials` that are recorded beside the call, not before its answer; `close` finishes what is under way."""

    def __init__(self) -> None:
        self._recording: set[asyncio.Task[None]] = set()

    async def denied(self, caller: CallerIdentity, relation: str, target: str) -> None:
        """Begin to record it; of a flood, only the log line is left."""
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
        """Write it down, where that is."""
        raise NotImplementedError

    async def _try(self, caller: CallerIdentity, relation: str, target: str) -> None:
        try:
            await self.record(caller, relation, target)
        except RpcError as error:
            log.warning("access.denial_not_recorded", code=error.code)


class Decisions:
    """Remembers what was allowed, for a moment, and asks once for what is asked at the same time.

    What is asked for again and again is asked anew before its moment is over, beside the call that it lets through.
    """

    def __init__(self, judge: Judge, clock: Callable[[], float] = time.monotonic) -> None:
        self._judge = judge
        self._clock = clock
        self._allowed: OrderedDict[Question, float] = OrderedDict()
        self._asking: Flights[Question, bool] = Flights()
        self._changes = 0

    async def allows(self, question: Question) -> bool:
        """Whether it is allowed, as far as was known within the last moments."""
        left = self._allowed.get(question, 0.0) - self._clock()
        if left <= 0:
            return await self._asking.run(question, lambda: self._ask(question))
        if left <= RENEWED.total_seconds():
            self._asking.begin(question, lambda: self._ask(question))
        return True

    async def still_allows(self, question: Question) -> bool:
        """Whether it is allowed by the facts as they are now."""
        self._allowed.pop(question, None)
        return await self._ask(question)

    def forget(self) -> None:
        """Remember nothing; what is asked at this moment is asked again by whoever comes next."""
        self._changes += 1
        self._allowed.clear()
        self._asking.forget()

    async def forget_on(self, signals: Signals) -> None:
        """Forget whenever facts change; runs until it is cancelled."""
        async with signals.listen(CHANGED) as changed:
            while True:
                await changed.wait()
                changed.clear()
                self.forget()

    async def _ask(self, question: Question) -> bool:
        began, changes = self._clock(), self._changes
        allowed = await self._judge.judge(question)
        if not allowed:
            self._allowed.pop(question, None)
        elif changes == self._changes:
            self._allowed[question] = began + REMEMBERED.total_seconds()
            self._allowed.move_to_end(question)
            while len(self._allowed) > MAX_REMEMBERED:
                self._allowed.popitem(last=False)
        return allowed


@dataclass(frozen=True, slots=True)
class Guard:
    """What the dependencies ask; one per app, at `app.state.guard`."""

    decisions: Decisions
    limiter: RateLimiter
    denials: Denials


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
        guard = guard_of(request)
        await guard.limiter.require(caller.user_id)
        scope = method_of(request).scope
        if scope not in caller.scopes:
            await guard.denials.denied(caller, f"scope {scope}", request.url.path)
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
        await require(guard_of(request), caller, self._relation, target, seen_by=self._seen_by)
        return caller


class Anybody(Authorization):
    """Anybody who comes through the edge, signed in or not."""

    @override
    async def __call__(self, request: Request) -> CallerIdentity:
        """Nobody in particular."""
        if calling_app(request) != "edge":
            raise unauthenticated()
        return CallerIdentity("", "", frozenset())


class FromApp(Authorization):
    """One of the apps that the contract names as the method's callers."""

    @override
    async def __call__(self, request: Request) -> CallerIdentity:
        """The app, by its id."""
        app = calling_app(request)
        if app not in method_of(request).callers:
            raise RpcError(ErrorCode.PERMISSION_DENIED, "This app may not call the method.")
        return CallerIdentity(app, "", frozenset())


async def require(
    guard: Guard, caller: CallerIdentity, relation: str, target: str, *, seen_by: str = "viewer"
) -> None:
    """The caller has the relation to the target: `conversation:conv_…`.

    Raises:
        RpcError: NOT_FOUND, PERMISSION_DENIED, UNAVAILABLE. What is missing and what is foreign cost the same.
    """
    if await guard.decisions.allows(Question(caller.user_id, relation, target)):
        return
    kind, _, _ = target.partition(":")
    seen = seen_by != relation and await guard.decisions.allows(
        Question(caller.user_id, seen_by, target)
    )
    await guard.denials.denied(caller, relation, target)
    if not seen:
        raise not_found(kind)
    raise RpcError(
        ErrorCode.PERMISSION_DENIED, f"You may see this {kind}, but not do that with it."
    )


def guard_of(request: Request) -> Guard:
    """What the dependencies of an app ask."""
    guard: Guard = getattr(request.app.state, GUARD_STATE)
    return guard


Caller = Annotated[CallerIdentity, Depends(SignedIn())]
"""A signed-in user with the method's scope, for what is the caller's own by construction."""
Public = Annotated[CallerIdentity, Depends(Anybody())]
"""A method without sign-in."""
CallingApp = Annotated[CallerIdentity, Depends(FromApp())]
"""A method for other apps."""
