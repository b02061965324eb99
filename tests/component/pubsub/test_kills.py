"""Deaths of the publisher and the subscriber at each step, and random kills of everything."""

import asyncio
import itertools
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.component.pubsub.conftest import Apps
from tests.component.pubsub.test_pubsub import waiting
from tests.requirements import requirement
from tests.support.failpoint_control import FailpointControl
from tests.support.wait import wait_until

pytestmark = pytest.mark.timeout(400)

PER_CALL: Final = 100
VICTIMS: Final[tuple[str, ...]] = ("llm", "auth", "llm-daprd", "auth-daprd", "valkey", "postgres")


@requirement("chaos:H4")
@pytest.mark.parametrize(
    ("app", "steps"),
    [
        ("llm", ("outbox.before_publish", "outbox.before_remove")),
        ("auth", ("inbox.before_effect", "inbox.before_commit", "inbox.after_commit")),
    ],
)
async def test_a_death_at_each_step_loses_and_repeats_nothing(
    apps: Apps, tmp_path: Path, app: str, steps: Sequence[str]
) -> None:
    numbers = list(range(100, 105))
    points = [f"{step}:1:kill" for step in steps]
    with FailpointControl(tmp_path / "failpoints", *points) as control:
        apps.stack.restart(app, env=control.environment)
        await apps.place(*numbers)
        for step in steps:
            await control.wait_for(step, timeout=40)
        await apps.wait_entered(*numbers, seconds=90)
    await wait_until(lambda: _is_empty(apps), 30, "the outbox to be empty")
    assert await apps.entries(*numbers) == numbers


@requirement("chaos:H3")
@pytest.mark.parametrize(
    ("events", "kills"), [(2_000, 8), pytest.param(10_000, 18, marks=pytest.mark.long)]
)
async def test_events_under_random_kills_have_one_effect_each(
    apps: Apps, events: int, kills: int
) -> None:
    """Kills each process, in a random order, after random numbers of handled events; prints the seed."""
    seed = time.time_ns() % 100_000
    chance = random.Random(seed)
    killed: dict[str, int] = dict.fromkeys(VICTIMS, 0)
    numbers = list(range(10_000, 10_000 + events))
    placing = asyncio.create_task(_place_all(apps, numbers))
    try:
        rounds = itertools.chain.from_iterable(
            chance.sample(VICTIMS, len(VICTIMS)) for _ in itertools.count()
        )
        victims = list(itertools.islice(rounds, kills))
        steps = sorted(chance.sample(range(1, events - PER_CALL), kills))
        for victim, step in zip(victims, steps, strict=True):
            await wait_until(lambda step=step: _has_entered(apps, step), 200, f"{step} entries")
            if apps.stack.pid(victim) is not None:
                apps.stack.kill(victim)
                killed[victim] += 1
        await placing
        await wait_until(lambda: _has_entered(apps, events), 200, "every event to have its entry")
    finally:
        placing.cancel()
        print(f"seed {seed}, killed {killed}")
    assert await apps.entries(*numbers) == numbers
    assert await apps.dead_letters() == []
    assert await waiting(apps) == 0
    assert min(killed.values()) >= 1


async def _place_all(apps: Apps, numbers: list[int]) -> None:
    """Place the orders, four calls at a time."""
    parts = [numbers[first : first + PER_CALL] for first in range(0, len(numbers), PER_CALL)]

    async def place_some(lane: int) -> None:
        for part in parts[lane::4]:
            await apps.place(*part)

    await asyncio.gather(*map(place_some, range(4)))


async def _has_entered(apps: Apps, count: int) -> bool:
    try:
        row = await apps.database.fetch_one("SELECT count(*) FROM ledger.entries")
    except Exception:
        return False  # Postgres restarts
    return row[0] >= count


async def _is_empty(apps: Apps) -> bool:
    return await waiting(apps) == 0
