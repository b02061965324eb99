"""Counts the calls of API keys in Valkey."""

from limits import RateLimitItemPerSecond

from services.contracts.auth.keys import KeyRateLimit
from services.kit.access.limits import SlidingWindows


class WindowCallCounter:
    """`CallCounter` by sliding windows."""

    def __init__(self, windows: SlidingWindows) -> None:
        self._windows = windows

    async def count(self, key_id: str, limit: KeyRateLimit, cost: int) -> int | None:
        item = RateLimitItemPerSecond(limit.limit, limit.window_seconds, namespace="api-key")
        if cost and not await self._windows.hit(item, key_id, cost):
            return None
        return (await self._windows.stats(item, key_id)).remaining
