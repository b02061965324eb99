"""Waiting for an event with a timeout."""

import asyncio


async def wait_for(event: asyncio.Event, seconds: float) -> bool:
    """Wait until an event is set, at most `seconds`; returns whether it was set."""
    if event.is_set():
        return True
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
