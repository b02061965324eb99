"""Load shedding: an adaptive concurrency limit that rejects calls before any work on them.

Each call of a sheddable method is measured until its response begins or it calls `mark_waiting`. A queue delays every
call, so when even the fastest call of an interval exceeds the target, the limit decreases; otherwise it increases,
until there is none. Users with many calls in flight are rejected before users with few. Internal methods and those
that complete begun work are never rejected.
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
"""Target for the fastest call of an interval; without load, a call takes a few milliseconds."""
INTERVAL_SECONDS: Final = 0.1
STALLED_SECONDS: Final = 1.0
"""Without a response for so long, the limit is the current number of calls."""
MIN_LIMIT: Final = 64
"""Concurrent calls that are always admitted, so that a burst of one user queues instead of failing."""
MAX_LIMIT: Final = 1000
"""Above this value the limit is removed."""
DECREASE: Final = 0.8
INCREASE: Final = 1.1
OVERLOADED_HEADER: Final = (b"x-overloaded", b"1")
"""Marks a 503 as load shedding, so that the edge rejects the next calls itself, at less cost."""


class Call:
    """An admitted call."""

    __slots__ = ("_admission", "since", "user")

    def __init__(self, admission: "AdmissionControl", user: bytes, since: float) -> None:
        self._admission: AdmissionControl | None = admission
        self.user = user
        self.since = since

    def complete(self) -> None:
        """End the measurement: the response begins, or the rest of the call is waiting. Later calls do nothing."""
        self._release(is_measured=True)

    def abandon(self) -> None:
        """End without a measurement, unless completed."""
        self._release(is_measured=False)

    def _release(self, *, is_measured: bool) -> None:
        admission, self._admission = self._admission, None
        if admission is not None:
            admission.release(self, is_measured=is_measured)


class AdmissionControl:
    """The concurrency limit of this process, adapted to measured delay."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._in_flight: dict[bytes, int] = {}
        self._total = 0
        self._peak = 0
        self._began = clock()
        self._fastest = math.inf
        self.limit = math.inf

    def admit(self, user: bytes) -> Call | None:
        """Admit a call of a user; None over the limit."""
        now = self._clock()
        if self._total == 0:
            self._end_interval(now)
        elif self._total >= MIN_LIMIT and now - self._began > STALLED_SECONDS:
            self.limit = min(self.limit, self._total)
        own = self._in_flight.get(user, 0)
        if self._total >= self.limit and not self._has_share_left(own):
            return None
        self._in_flight[user] = own + 1
        self._total += 1
        self._peak = max(self._peak, self._total)
        return Call(self, user, now)

    def release(self, call: Call, *, is_measured: bool) -> None:
        """Remove a call from those in flight."""
        self._total -= 1
        left = self._in_flight[call.user] - 1
        if left:
            self._in_flight[call.user] = left
        else:
            del self._in_flight[call.user]
        if not is_measured:
            return
        now = self._clock()
        self._fastest = min(self._fastest, now - call.since)
        self._end_interval(now)

    def _has_share_left(self, own: int) -> bool:
        """Whether a user with `own` calls is below its fair share, and the total below twice the limit."""
        share = self.limit / (len(self._in_flight) + (own == 0))
        return own < share and self._total < 2 * self.limit

    def _end_interval(self, now: float) -> None:
        if now - self._began < INTERVAL_SECONDS:
            return
        if TARGET_SECONDS < self._fastest < math.inf:
            self.limit = max(MIN_LIMIT, min(self.limit, self._peak) * DECREASE)
        elif self.limit > MAX_LIMIT or now - self._began > STALLED_SECONDS:  # high enough, or idle
            self.limit = math.inf
        else:
            self.limit *= INCREASE
        self._began, self._fastest, self._peak = now, math.inf, self._total


_current: ContextVar[Call | None] = ContextVar("admitted_call", default=None)


def mark_waiting() -> None:
    """End the measurement of the current call: the rest of it waits for other work."""
    call = _current.get()
    if call is not None:
        call.complete()


class LoadShedder:
    """Middleware that applies admission control to the methods on these paths."""

    def __init__(self, app: ASGIApp, paths: Collection[str], admission: AdmissionControl) -> None:
        self._app = app
        self._paths = frozenset(paths)
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward the request, or answer UNAVAILABLE with `Retry-After`."""
        if scope["type"] != "http" or scope["path"] not in self._paths:
            await self._app(scope, receive, send)
            return
        call = self._admission.admit(_user_of(scope))
        if call is None:
            await _refuse(send)
            return

        async def send_measured(message: Message) -> None:
            call.complete()
            await send(message)

        token = _current.set(call)
        try:
            await self._app(scope, receive, send_measured)
        finally:
            _current.reset(token)
            call.abandon()


def _user_of(scope: Scope) -> bytes:
    """The claimed user; not verified here, as it only affects fairness."""
    return next((value for name, value in scope["headers"] if name == b"x-user-id"), b"")


async def _refuse(send: Send) -> None:
    error = RpcError(
        ErrorCode.UNAVAILABLE,
        "The service is overloaded; try again in a moment.",
        retry_after=timedelta(seconds=random.randint(1, 3)),  # spread the retries
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
