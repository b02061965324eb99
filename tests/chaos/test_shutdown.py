"""SIGTERM amid a stream: short answers are drained, long ones are handed over."""

import asyncio
import signal
import time
import uuid
from collections.abc import Callable

import pytest

from tests.chaos.faults import kill, running
from tests.chaos.turns import MIDDLE, TurnUnderFire, next_turn_works, release, script
from tests.requirements import requirement
from tests.support.platform import Client, Platform

EXIT_SECONDS = 10.0


@requirement("chaos:C2", "turns:attempt-restarted", "turns:liveness")
@pytest.mark.parametrize("target", ["llm", "edge", "workflows"])
async def test_sigterm_amid_streams_drains_or_hands_over(
    platform: Platform, alice: Client, figure: Callable[..., None], target: str
) -> None:
    gate = uuid.uuid4().hex
    await platform.until_answering()
    tries = script()
    tries[0] |= {"gate": gate, "gate_after": MIDDLE}
    held = await TurnUnderFire.begin(alice, tries)
    await held.shows(MIDDLE)
    short = await TurnUnderFire.begin(alice, script(delay_ms=10))
    await short.shows(1)
    began = time.monotonic()
    await kill(platform, target, signal.SIGTERM)
    exit_seconds = time.monotonic() - began
    await running(platform, target)
    try:
        # The model never ends the held try: llm has to give it up, and another host of the turn begins anew.
        if target != "llm":
            await release(platform, gate)
        await asyncio.gather(held.ended(), short.ended())
    finally:
        await release(platform, gate)
    figure(figure="exit after SIGTERM amid streams", target=target, seconds=round(exit_seconds, 2))
    assert exit_seconds < EXIT_SECONDS
    assert [*await held.problems(), *await short.problems()] == []
    assert short.fold.restarts == 0, "an answer of half a second was not drained"
    assert held.fold.restarts == (1 if target == "llm" else 0)
    await asyncio.gather(next_turn_works(held), next_turn_works(short))
