"""Fifty turns lose their host at once, and each is recovered once."""

import asyncio
import time
import uuid
from collections.abc import Callable

from tests.chaos.faults import kill, until_ready
from tests.chaos.turns import MIDDLE, ObservedTurn, problems_of, script_held_once
from tests.requirements import requirement
from tests.support.platform import Client, Platform

ORPHANS = 50


@requirement("turns:liveness", "turns:attempt-restarted", "turns:one-terminal", "chaos:T6")
async def test_fifty_turns_of_a_killed_host_are_recovered_once_each(
    platform: Platform, alice: Client, figure: Callable[..., None]
) -> None:
    gate = uuid.uuid4().hex
    turns: list[ObservedTurn] = []
    try:
        while len(turns) < ORPHANS:
            some = [ObservedTurn.begin(alice, script_held_once(gate)) for _ in range(10)]
            turns += await asyncio.gather(*some)
        await asyncio.gather(*(turn.shows(MIDDLE) for turn in turns))
        await platform.wait_held(gate, ORPHANS)
        killed = time.monotonic()
        await kill(platform, "llm")
        await until_ready(platform, "llm")
        back = time.monotonic()
        await asyncio.gather(*(turn.ended() for turn in turns))
    finally:
        for turn in turns:
            turn.abandon()
        await platform.release_gate(gate)
    ends = sorted(turn.ended_at for turn in turns)
    figure(
        figure="orphans at once",
        orphans=ORPHANS,
        host_back_s=round(back - killed, 1),
        first_ended_s=round(ends[0] - back, 1),
        last_ended_s=round(ends[-1] - back, 1),
    )
    assert [turn.fold.restarts for turn in turns] == [1] * ORPHANS
    assert [await turn.model_calls(platform) for turn in turns] == [2] * ORPHANS
    assert await problems_of(turns) == []
