"""Rate limits, counted in Valkey for all replicas together; while it is away, in each process by itself."""

import time
from datetime import timedelta
from typing import Any, Final

import structlog
from limits import RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.storage import storage_from_string

from services.kit.errors import ErrorCode, RpcError

AWAY_SECONDS: Final = 2.0
"""How long a process counts by itself before it looks for Valkey again."""
TIMEOUT_SECONDS: Final = 0.25

log = structlog.get_logger()


class RateLimiter:
    """At most `limit` calls of one subject in a sliding window."""

    def __init__(self, valkey_url: str, *, name: str, limit: int, window: timedelta) -> None:
        self._name = name
        self._item = RateLimitItemPerSecond(limit, int(window.total_seconds()), namespace="rate")
        self._storage = valkey_storage(valkey_url)
        self._shared: Any = SlidingWindowCounterRateLimiter(self._storage)
        self._own: Any = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._away_until = 0.0

    async def require(self, subject: str) -> None:
        """Count one call.

        Raises:
            RpcError: RATE_LIMITED with the time after which a call is let through again.
        """
        limiter = self._own if time.monotonic() < self._away_until else self._shared
        if await self._hit(limiter, subject):
            return
        raise RpcError(
            ErrorCode.RATE_LIMITED,
            f"More than {self._item.amount} calls in {self._item.get_expiry()} s.",
            retry_after=await self._wait(limiter, subject),
        )

    async def close(self) -> None:
        """Close the connections."""
        await close_storage(self._storage)

    async def _hit(self, limiter: Any, subject: str) -> bool:
        try:
            return await limiter.hit(self._item, self._name, subject)
        except Exception as error:
            if limiter is self._own:
                raise
            log.warning("limits.store_away", error=type(error).__name__)
            self._away_until = time.monotonic() + AWAY_SECONDS
            return await self._own.hit(self._item, self._name, subject)

    async def _wait(self, limiter: Any, subject: str) -> timedelta:
        try:
            stats = await limiter.get_window_stats(self._item, self._name, subject)
        except Exception:
            return timedelta(seconds=1)
        return timedelta(seconds=max(1.0, stats.reset_time - time.time()))


def valkey_storage(url: str) -> Any:
    """Counters in Valkey; a call of them fails within a quarter of a second."""
    return storage_from_string(
        "async+valkey" + url[url.index("://") :],
        implementation="valkey",
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
    )


async def close_storage(storage: Any) -> None:
    """Close a storage's connections, which the library leaves to the garbage collector."""
    await storage.bridge.storage.aclose()
