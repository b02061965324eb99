"""Rate limits, counted in Valkey for all replicas together; while it is away, in each process by itself."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar

import structlog
from limits import RateLimitItem, RateLimitItemPerSecond, WindowStats
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.storage import storage_from_string

from services.kit.errors import ErrorCode, RpcError
from services.kit.single_flight import SingleFlight

AWAY_SECONDS: Final = 2.0
"""How long a process counts by itself before it looks for Valkey again."""
TIMEOUT_SECONDS: Final = 0.25
MAX_CONNECTIONS: Final = 32
"""A flood waits for its turn: as many connections as calls would time out, and then nobody counts for all."""
MAX_TAKEN_AHEAD: Final = 10
"""Calls that a process counts at once, before they are made; never more than a hundredth of the limit."""
MAX_SUBJECTS: Final = 20_000

V = TypeVar("V")

log = structlog.get_logger()


class SlidingWindows:
    """Sliding windows in Valkey, or while it is away in this process; nothing here waits longer than a moment."""

    def __init__(self, valkey_url: str) -> None:
        self._storage: Any = storage_from_string(
            "async+valkey" + valkey_url[valkey_url.index("://") :],
            implementation="valkey",
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
        )
        self._shared: Any = SlidingWindowCounterRateLimiter(self._storage)
        self._own: Any = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._turn = asyncio.Semaphore(MAX_CONNECTIONS)
        self._away_until = 0.0

    async def hit(self, item: RateLimitItem, subject: str, cost: int = 1) -> bool:
        """Count that much; where it is more than what is left, count nothing and say no."""
        return await self._ask(lambda windows: windows.hit(item, subject, cost=cost))

    async def stats(self, item: RateLimitItem, subject: str) -> WindowStats:
        """What is left, and when there is more."""
        return await self._ask(lambda windows: windows.get_window_stats(item, subject))

    async def close(self) -> None:
        """Close the connections, which the library leaves to the garbage collector."""
        await self._storage.bridge.storage.aclose()

    async def _ask(self, ask: Callable[[Any], Awaitable[V]]) -> V:
        async with self._turn:
            if time.monotonic() >= self._away_until:
                try:
                    return await ask(self._shared)
                except Exception as error:  # whatever the store failed with, callers are counted
                    log.warning("limits.store_away", error=type(error).__name__)
                    self._away_until = time.monotonic() + AWAY_SECONDS
        return await ask(self._own)


@dataclass(slots=True)
class _Taken:
    """Calls of a subject that are counted already, and lapse with the window that they were counted in."""

    calls: int
    until: float


class RateLimiter:
    """At most `limit` calls of one subject in a sliding window.

    Each process counts a few calls ahead, so that most of them ask nobody. Those are missing elsewhere, and may be
    spent until their window is over: each process makes the limit inexact by a hundredth.
    """

    def __init__(
        self,
        windows: SlidingWindows,
        *,
        name: str,
        limit: int,
        window: timedelta,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._windows = windows
        self._clock = clock
        self._window = window.total_seconds()
        self._item = RateLimitItemPerSecond(limit, int(self._window), namespace=f"rate/{name}")
        self._ahead = min(MAX_TAKEN_AHEAD, limit // 100)
        self._taken: OrderedDict[str, _Taken] = OrderedDict()
        self._taking: SingleFlight[str, bool] = SingleFlight()

    async def require(self, subject: str) -> None:
        """Count one call.

        Raises:
            RpcError: RATE_LIMITED with the time after which a call is let through again.
        """
        ahead = self._ahead > 1
        while ahead and not self._spend(subject):
            ahead = await self._taking.run(subject, lambda: self._take(subject))
        if ahead or await self._windows.hit(self._item, subject):
            return
        left = await self._windows.stats(self._item, subject)
        raise RpcError(
            ErrorCode.RATE_LIMITED,
            f"More than {self._item.amount} calls in {self._item.get_expiry()} s.",
            retry_after=timedelta(seconds=max(1.0, left.reset_time - time.time())),
        )

    def _spend(self, subject: str) -> bool:
        taken = self._taken.get(subject)
        if taken is None or taken.calls == 0 or self._clock() >= taken.until:
            return False
        taken.calls -= 1
        return True

    async def _take(self, subject: str) -> bool:
        """Count some calls ahead; no where so many are not left any more."""
        until = self._clock() + self._window
        if not await self._windows.hit(self._item, subject, self._ahead):
            return False
        self._taken[subject] = _Taken(self._ahead, until)
        self._taken.move_to_end(subject)
        if len(self._taken) > MAX_SUBJECTS:
            self._taken.popitem(last=False)
        return True
