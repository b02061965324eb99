"""Fifty turns lose their host at once."""

import asyncio
import time
import uuid
from collections.abc import Callable

from tests.chaos.faults import kill, running
from tests.chaos.turns import MIDDLE, TurnUnderFire, held_at, release, script
from tests.requirements import requirement
from tests.support.platform import Client, Platform

ORPHANS = 50


@requirement("turns:liveness", "turns:attempt-restarted", "turns:one-terminal", "chaos:T6")
async def test_fifty_orphans_at_once_all_go_on(
    platform: Platform, alice: Client, figure: Callable[..., None]
) -> None:
    gate = uuid.uuid4().hex
    tries = script()
    tries[0] |= {"gate": gate, "gate_after": MIDDLE}
    turns: list[TurnUnderFire] = []
    try:
        while len(turns) < ORPHANS:
            some = [TurnUnderFire.begin(alice, tries) for _ in range(10)]
            turns += await asyncio.gather(*some)
        await asyncio.gather(*(turn.shows(MIDDLE) for turn in turns))
        await held_at(platform, gate, ORPHANS)
        killed = time.monotonic()
        await kill(platform, "llm")
        await running(platform, "llm")
        back = time.monotonic()
        await asyncio.gather(*(turn.ended() for turn in turns))
    finally:
        for turn in turns:
            turn.abandon()
        await release(platform, gate)
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
    problems = await asyncio.gather(*(turn.problems() for turn in turns))
    assert [each for those in problems for each in those] == []
