"""Puts an app's guard together: what is remembered, counted and written down of who may call."""

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta

from fastapi import FastAPI

from services.kit.access.authorization import GUARD_STATE, Guard, RecordedDenials
from services.kit.access.cache import AccessCache, AccessSource
from services.kit.access.limits import RateLimiter, SlidingWindows
from services.kit.background import background
from services.kit.settings import PlatformSettings
from services.kit.storage.wake_ups import Signals


async def open_guard(
    app: FastAPI,
    stack: AsyncExitStack,
    settings: PlatformSettings,
    *,
    name: str,
    source: AccessSource,
    denials: RecordedDenials,
    signals: Signals,
    windows: SlidingWindows,
) -> AccessCache:
    """Let the routes of the app of that name check access by `source`; returns what is remembered of the answers."""
    stack.push_async_callback(denials.close)
    access = AccessCache(source)
    minute = timedelta(minutes=1)
    limiter = RateLimiter(windows, name=name, limit=settings.user_rate, window=minute)
    setattr(app.state, GUARD_STATE, Guard(access, limiter, denials))
    following = asyncio.create_task(access.follow_feed(signals), name="access feed")
    await stack.enter_async_context(background(following))
    return access
