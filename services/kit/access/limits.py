"""Rate limits, counted in Valkey across all replicas; while Valkey is unavailable, in each process."""

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

FALLBACK_SECONDS: Final = 2.0
"""How long a process counts locally before it tries Valkey again."""
TIMEOUT_SECONDS: Final = 0.25
MAX_CONNECTIONS: Final = 32
"""Caps the Valkey pool. Unbounded, a burst would time out and each process would fall back to counting locally."""
MAX_RESERVED: Final = 10
"""Calls that a process counts in advance by one hit; at most a hundredth of the limit."""
MAX_SUBJECTS: Final = 20_000
"""Bounds the memory of reservations."""

V = TypeVar("V")

log = structlog.get_logger()


class SlidingWindows:
    """Sliding-window counters in Valkey, or in this process while Valkey is unavailable."""

    def __init__(self, valkey_url: str) -> None:
        self._storage: Any = storage_from_string(
            "async+valkey" + valkey_url[valkey_url.index("://") :],
            implementation="valkey",
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
        )
        self._shared: Any = SlidingWindowCounterRateLimiter(self._storage)
        self._local: Any = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._connections = asyncio.Semaphore(MAX_CONNECTIONS)
        self._local_until = 0.0

    async def hit(self, item: RateLimitItem, subject: str, cost: int = 1) -> bool:
        """Add `cost` if the limit allows it, else add nothing and return False."""
        return await self._ask(lambda windows: windows.hit(item, subject, cost=cost))

    async def stats(self, item: RateLimitItem, subject: str) -> WindowStats:
        """The remaining amount, and when the window resets."""
        return await self._ask(lambda windows: windows.get_window_stats(item, subject))

    async def close(self) -> None:
        """Close the connections; the library has no call for it."""
        await self._storage.bridge.storage.aclose()

    async def _ask(self, ask: Callable[[Any], Awaitable[V]]) -> V:
        async with self._connections:
            if time.monotonic() >= self._local_until:
                try:
                    return await ask(self._shared)
                except Exception as error:  # any failure of the store: calls must still be counted
                    log.warning("limits.valkey_unavailable", error=type(error).__name__)
                    self._local_until = time.monotonic() + FALLBACK_SECONDS
        return await ask(self._local)


@dataclass(slots=True)
class _Reservation:
    """Calls of a subject that are already counted; they expire with the window in which they were counted."""

    calls: int
    until: float


class RateLimiter:
    """At most `limit` calls per subject in a sliding window.

    Each process reserves a few calls at a time, so that most calls need no round trip. Unused reservations make the
    limit inexact by up to a hundredth per process.
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
        self._batch = min(MAX_RESERVED, limit // 100)
        self._reservations: OrderedDict[str, _Reservation] = OrderedDict()
        self._in_flight: SingleFlight[str, bool] = SingleFlight()

    async def require(self, subject: str) -> None:
        """Count one call.

        Raises:
            RpcError: RATE_LIMITED, with `Retry-After`.
        """
        reserved = self._batch > 1
        while reserved and not self._spend(subject):
            reserved = await self._in_flight.run(subject, lambda: self._reserve(subject))
        if reserved or await self._windows.hit(self._item, subject):
            return
        left = await self._windows.stats(self._item, subject)
        raise RpcError(
            ErrorCode.RATE_LIMITED,
            f"More than {self._item.amount} calls in {self._item.get_expiry()} s.",
            retry_after=timedelta(seconds=max(1.0, left.reset_time - time.time())),
        )

    def _spend(self, subject: str) -> bool:
        reservation = self._reservations.get(subject)
        if reservation is None or reservation.calls == 0 or self._clock() >= reservation.until:
            return False
        reservation.calls -= 1
        return True

    async def _reserve(self, subject: str) -> bool:
        """Count a batch of calls in advance; False when fewer than a batch remain."""
        until = self._clock() + self._window
        if not await self._windows.hit(self._item, subject, self._batch):
            return False
        self._reservations[subject] = _Reservation(self._batch, until)
        self._reservations.move_to_end(subject)
        if len(self._reservations) > MAX_SUBJECTS:
            self._reservations.popitem(last=False)
        return True
