"""Overload: what is more than this process can do is refused at the door, before anything of it is begun.

Each call of a public method is timed until its answer begins, or until it says that from here on it only waits
(`begun`). A slow call alone says nothing; a queue delays everybody. So when even the fastest call of an interval took
longer than the target, fewer calls are let in at once; when it did not, more, until there is no limit any more. Who
has many calls under way is refused before who has few. Calls that complete begun work are no public methods, or are
declared as such, and always come in.
"""

import math
import random
import time
from collections.abc import Callable, Collection
from contextvars import ContextVar
from datetime import timedelta
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.kit.errors import ErrorCode, RpcError

TARGET_SECONDS: Final = 0.1
"""How long the fastest call may take; a call alone takes a few milliseconds."""
INTERVAL_SECONDS: Final = 0.1
STALLED_SECONDS: Final = 1.0
"""After how long without an answer no more calls are let in."""
FEWEST: Final = 64
"""So many calls at once are always let in: a burst of one user waits a moment, which is better than to be refused."""
MOST: Final = 1000
"""A limit beyond is none."""
DOWN: Final = 0.8
UP: Final = 1.1
OVERLOADED_HEADER: Final = (b"x-overloaded", b"1")
"""Tells the edge what a 503 is about, so that it refuses the next ones itself, where that costs less."""


class Call:
    """A call that was let in."""

    __slots__ = ("_admission", "since", "user")

    def __init__(self, admission: "Admission", user: bytes, since: float) -> None:
        self._admission: Admission | None = admission
        self.user = user
        self.since = since

    def begun(self) -> None:
        """It has done its share of work; once is enough."""
        self._leave(answered=True)

    def ended(self) -> None:
        """It is over, whether it was answered or not."""
        self._leave(answered=False)

    def _leave(self, *, answered: bool) -> None:
        admission, self._admission = self._admission, None
        if admission is not None:
            admission.leave(self, answered=answered)


class Admission:
    """How many calls this process lets in at once, by the delay that it measures."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._under_way: dict[bytes, int] = {}
        self._total = 0
        self._most = 0
        self._began = clock()
        self._fastest = math.inf
        self.limit = math.inf

    def admit(self, user: bytes) -> Call | None:
        """Let a call of a user in; None where there are too many."""
        now = self._clock()
        if self._total == 0:
            self._end_interval(now)
        elif self._total >= FEWEST and now - self._began > STALLED_SECONDS:
            self.limit = min(self.limit, self._total)
        own = self._under_way.get(user, 0)
        if self._total >= self.limit and not self._is_owed(own):
            return None
        self._under_way[user] = own + 1
        self._total += 1
        self._most = max(self._most, self._total)
        return Call(self, user, now)

    def leave(self, call: Call, *, answered: bool) -> None:
        """A call is no longer worked on; what it took counts if it was answered."""
        self._total -= 1
        left = self._under_way[call.user] - 1
        if left:
            self._under_way[call.user] = left
        else:
            del self._under_way[call.user]
        if not answered:
            return
        now = self._clock()
        self._fastest = min(self._fastest, now - call.since)
        self._end_interval(now)

    def _is_owed(self, own: int) -> bool:
        """Whether a user with so many calls has less than its share, and there is room for one more such."""
        share = self.limit / (len(self._under_way) + (own == 0))
        return own < share and self._total < 2 * self.limit

    def _end_interval(self, now: float) -> None:
        if now - self._began < INTERVAL_SECONDS:
            return
        if TARGET_SECONDS < self._fastest < math.inf:
            self.limit = max(FEWEST, min(self.limit, self._most) * DOWN)
        elif self.limit > MOST or now - self._began > STALLED_SECONDS:  # plenty, or nobody came
            self.limit = math.inf
        else:
            self.limit *= UP
        self._began, self._fastest, self._most = now, math.inf, self._total


_current: ContextVar[Call | None] = ContextVar("admitted_call", default=None)


def now_waiting() -> None:
    """Say that the call being served has done its share of work: from here on it waits for something else."""
    call = _current.get()
    if call is not None:
        call.begun()


class Shedding:
    """The door: of the methods on these paths only as many calls as the process can do."""

    def __init__(self, app: ASGIApp, paths: Collection[str], admission: Admission) -> None:
        self._app = app
        self._paths = frozenset(paths)
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the call, or answer UNAVAILABLE with the time after which to try again."""
        if scope["type"] != "http" or scope["path"] not in self._paths:
            await self._app(scope, receive, send)
            return
        call = self._admission.admit(_user_of(scope))
        if call is None:
            await _refuse(send)
            return

        async def noting(message: Message) -> None:
            call.begun()
            await send(message)

        token = _current.set(call)
        try:
            await self._app(scope, receive, noting)
        finally:
            _current.reset(token)
            call.ended()


def _user_of(scope: Scope) -> bytes:
    """Whose call it says it is: this decides only who waits, so nobody need have checked it."""
    return next((value for name, value in scope["headers"] if name == b"x-user-id"), b"")


async def _refuse(send: Send) -> None:
    error = RpcError(
        ErrorCode.UNAVAILABLE,
        "There is more to do than can be done; try again in a moment.",
        retry_after=timedelta(seconds=random.randint(1, 3)),  # not all at the same time
    )
    headers = [(name.encode(), value.encode()) for name, value in error.headers().items()]
    body = error.to_body().to_json()
    headers += [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        OVERLOADED_HEADER,
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
