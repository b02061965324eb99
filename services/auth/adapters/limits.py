"""Counts the calls of API keys in Valkey, in a sliding window; while it is away, in each process by itself."""

from typing import Any

import structlog
from limits import RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from services.contracts.keys import KeyRateLimit
from services.kit.limits import close_storage, valkey_storage

log = structlog.get_logger()


class ValkeyCallCounter:
    """`CallCounter` over the library `limits`."""

    def __init__(self, valkey_url: str) -> None:
        self._storage = valkey_storage(valkey_url)
        self._shared: Any = SlidingWindowCounterRateLimiter(self._storage)
        self._own: Any = SlidingWindowCounterRateLimiter(MemoryStorage())

    async def close(self) -> None:
        """Close the connections."""
        await close_storage(self._storage)

    async def count(self, key_id: str, limit: KeyRateLimit, cost: int) -> int | None:
        """The calls that remain after `cost` more; None where they are too many."""
        item = RateLimitItemPerSecond(limit.limit, limit.window_seconds, namespace="api-key")
        try:
            return await _count(self._shared, item, key_id, cost)
        except Exception as error:
            log.warning("limits.store_away", error=type(error).__name__)
            return await _count(self._own, item, key_id, cost)


async def _count(limiter: Any, item: RateLimitItemPerSecond, key_id: str, cost: int) -> int | None:
    if cost and not await limiter.hit(item, key_id, cost=cost):
        return None
    return (await limiter.get_window_stats(item, key_id)).remaining
