"""Puts an app's guard together: what is remembered, counted and written down of who may call."""

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta

from fastapi import FastAPI

from services.kit.app import background
from services.kit.authorization import GUARD_STATE, Decisions, Guard, Judge, RecordedDenials
from services.kit.limits import RateLimiter, SlidingWindows
from services.kit.settings import PlatformSettings
from services.kit.signals import Signals


async def open_guard(
    app: FastAPI,
    stack: AsyncExitStack,
    settings: PlatformSettings,
    *,
    name: str,
    judge: Judge,
    denials: RecordedDenials,
    signals: Signals,
    windows: SlidingWindows,
) -> Decisions:
    """Let the routes of the app of that name ask `judge`; returns what is remembered of the answers."""
    stack.push_async_callback(denials.close)
    decisions = Decisions(judge)
    minute = timedelta(minutes=1)
    limiter = RateLimiter(windows, name=name, limit=settings.user_rate, window=minute)
    setattr(app.state, GUARD_STATE, Guard(decisions, limiter, denials))
    forgetting = asyncio.create_task(decisions.forget_on(signals), name="access changes")
    await stack.enter_async_context(background(forgetting))
    return decisions
