"""Kill -9 of every process that takes part, while operations of all apps stand at every step that the apps declare."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from tests.chaos.faults import Recovery, kill, killed_for, until_ready
from tests.chaos.held import KILLED_ELSEWHERE, STEPS, HeldOperations, held_operations
from tests.chaos.turns import next_turn_works
from tests.requirements import requirement
from tests.support.failpoint_control import FailpointControl, declared
from tests.support.platform import ROOT, Client, Platform
from tests.support.retries import RECOVERY_SECONDS

APPS = ("llm", "workflows", "auth", "edge")
SIDECARS = tuple(f"{app}-daprd" for app in APPS)
CONTROL_PLANE = ("placement", "scheduler")
STORES = ("postgres", "valkey", "openfga")
KEPT_DOWN = (*SIDECARS, *STORES)
"""Kept down while the operations are released; the others are restarted at once, and those released then."""
DOWN_SECONDS = 3.0
"""How long a process is kept down, while the operations are released."""
BY_ACTIVITY = "turn.after_terminal"
GENERATED = "turn.after_generate"
"""From this step on the answer is checkpointed: recovery does not call the model again."""
BY_WORKFLOW = ("workflows", "workflows-daprd", "scheduler")
"""Targets that only a turn with a failed first attempt needs."""


async def _check(held: HeldOperations, target: str) -> None:
    turns = held.turns
    if target == "llm":  # only a kill of llm interrupts attempts
        restarted = {step for step, turn in turns.items() if turn.fold.restarts}
        assert {"turn.after_chunk", "middle"} <= restarted
    assert await held.problems() == []
    steps = [step for step in turns if step in STEPS]
    generated = steps[steps.index(GENERATED) :]
    calls = {step: await turns[step].model_calls(held.platform) for step in generated}
    assert calls == dict.fromkeys(generated, 1) | {BY_ACTIVITY: 2}, (
        "the model was called again for a checkpointed answer"
    )
    await asyncio.gather(*map(next_turn_works, turns.values()))


@requirement("kit:failpoints")
def test_every_step_that_an_app_declares_is_held_here_or_killed_elsewhere() -> None:
    assert {"turn.before_begin", "erasure.after_delete", "auth.outbox.deliver"} <= STEPS
    for step, test in KILLED_ELSEWHERE.items():
        assert step in declared()
        assert f'"{step}:1:kill"' in (ROOT / test).read_text()


Survive = Callable[[str], Awaitable[None]]


@pytest.fixture
def survive(
    platform: Platform, alice: Client, failpoints: FailpointControl, figure: Callable[..., None]
) -> Survive:
    """Kills a process while an operation stands at every step, and checks all of them."""

    async def check(target: str) -> None:
        async with held_operations(platform, alice, failpoints) as held:
            await held.require_standing()
            recovery = Recovery(alice, by_workflow=target in BY_WORKFLOW)
            if target in KEPT_DOWN:
                async with killed_for(platform, target, DOWN_SECONDS):
                    await held.release()
            else:
                await kill(platform, target)
                await until_ready(platform, target)
                await held.release()
            healed = time.monotonic()
            recovered = asyncio.create_task(recovery.seconds())
            await held.ended(RECOVERY_SECONDS)
            ended = round(time.monotonic() - healed, 1)
            figure(
                figure="recovery after kill -9",
                target=target,
                seconds=await recovered,
                all_ended_s=ended,
            )
            await _check(held, target)

    return check


@requirement("chaos:T0", "chaos:T1", "chaos:T2", "chaos:T3", "chaos:T4")
@pytest.mark.parametrize("target", APPS)
async def test_a_kill_of_an_app_at_every_step_loses_and_duplicates_nothing(
    survive: Survive, target: str
) -> None:
    await survive(target)


@requirement("chaos:T5", "chaos:T6", "chaos:T11", "chaos:T12", "chaos:W2")
@pytest.mark.parametrize("target", SIDECARS)
async def test_a_kill_of_a_sidecar_at_every_step_loses_and_duplicates_nothing(
    survive: Survive, target: str
) -> None:
    await survive(target)


@requirement("chaos:control-plane", "turns:fenced", "turns:one-terminal", "turns:liveness")
@pytest.mark.parametrize("target", CONTROL_PLANE)
async def test_a_kill_of_the_control_plane_at_every_step_loses_and_duplicates_nothing(
    survive: Survive, target: str
) -> None:
    await survive(target)


@requirement("chaos:stores", "kit:segments", "turns:enqueue", "access:tuples-follow-objects")
@pytest.mark.parametrize("target", STORES)
async def test_a_kill_of_a_store_at_every_step_loses_and_duplicates_nothing(
    survive: Survive, target: str
) -> None:
    await survive(target)
