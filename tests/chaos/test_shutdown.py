"""SIGTERM during streams: short answers are drained, long ones are taken over by another host."""

import asyncio
import signal
import time
import uuid
from collections.abc import Callable

import pytest

from tests.chaos.faults import kill, until_ready
from tests.chaos.turns import (
    MIDDLE,
    ObservedTurn,
    next_turn_works,
    problems_of,
    script,
    script_held_once,
)
from tests.requirements import requirement
from tests.support.platform import Client, Platform

EXIT_SECONDS = 10.0


@requirement("chaos:C2", "turns:attempt-restarted", "turns:liveness")
@pytest.mark.parametrize("target", ["llm", "edge", "workflows"])
async def test_sigterm_during_streams_drains_short_and_hands_over_long_answers(
    platform: Platform, alice: Client, figure: Callable[..., None], target: str
) -> None:
    gate = uuid.uuid4().hex
    await platform.until_answering()
    held = await ObservedTurn.begin(alice, script_held_once(gate))
    await held.shows(MIDDLE)
    short = await ObservedTurn.begin(alice, script(delay_ms=10))
    await short.shows(1)
    began = time.monotonic()
    await kill(platform, target, signal.SIGTERM)
    exit_seconds = time.monotonic() - began
    await until_ready(platform, target)
    try:
        # The held model call never ends, so llm aborts the attempt at shutdown and its successor makes a new one.
        if target != "llm":
            await platform.release_gate(gate)
        await asyncio.gather(held.ended(), short.ended())
    finally:
        await platform.release_gate(gate)
    figure(
        figure="exit after SIGTERM during streams", target=target, seconds=round(exit_seconds, 2)
    )
    assert exit_seconds < EXIT_SECONDS
    assert await problems_of([held, short]) == []
    assert short.fold.restarts == 0, "an answer of half a second was not drained"
    assert held.fold.restarts == (1 if target == "llm" else 0)
    await asyncio.gather(next_turn_works(held), next_turn_works(short))
