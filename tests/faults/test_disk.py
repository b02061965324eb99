"""A full disk under Postgres."""

import asyncio
import time
import uuid
from pathlib import Path
from typing import Final

import pytest

from tests.chaos.faults import restart, until_ready
from tests.chaos.turns import MIDDLE, ObservedTurn, next_turn_works, script
from tests.faults.load import Load
from tests.requirements import requirement
from tests.support.full_disk import FullDisk, Mode
from tests.support.platform import Client, Platform
from tests.support.retries import RECOVERY_SECONDS
from tests.support.wait import wait_until

pytestmark = pytest.mark.long

FULL_SECONDS: Final = 10.0
IN_FLIGHT_SECONDS: Final = 1.0
MESSAGE: Final = "No space left on device"


@requirement("chaos:disk", "turns:one-terminal", "events:gap-free")
@pytest.mark.parametrize("mode", ["extend", "all"])
async def test_a_full_disk_loses_nothing(
    platform: Platform, state: Path, alice: Client, mode: Mode
) -> None:
    disk = FullDisk(state / "full")
    await restart(platform, "postgres", disk.environment)
    gate = uuid.uuid4().hex
    held = await ObservedTurn.begin(alice, script(gate=gate, gate_after=MIDDLE))
    await held.shows(MIDDLE)
    reported = _reported(platform)
    async with Load.running(alice) as load:
        with disk.full(mode):
            since = time.monotonic()
            await platform.release_gate(gate)
            await wait_until(lambda: _reported(platform) > reported, 30, "a full disk")
            await wait_until(
                lambda: time.monotonic() >= since + FULL_SECONDS, FULL_SECONDS + 5, every=0.2
            )
            passed = load.succeeded("AppendMessage", since + IN_FLIGHT_SECONDS, time.monotonic())
        await until_ready(platform, "postgres")
        async with asyncio.timeout(RECOVERY_SECONDS):
            await held.ended()
    assert mode == "extend" or passed == [], "Postgres acknowledged what it cannot have written"
    assert await load.find_problems() == []
    assert await held.problems() == []
    await load.stay_steady()
    await next_turn_works(held)


def _reported(platform: Platform) -> int:
    """How often Postgres has reported a full disk."""
    return platform.stack.log("postgres").read_text(errors="replace").count(MESSAGE)
