"""Deaths of the app at each step of a run, of its sidecar amid a run, and of the scheduler."""

from pathlib import Path

import pytest

from tests.component.jobs.conftest import Works
from tests.requirements import requirement
from tests.support.failpoint_control import FailpointControl
from tests.support.wait import wait_until

pytestmark = pytest.mark.timeout(150)


@requirement("chaos:J1")
@pytest.mark.parametrize("step", ["jobs.before_handler", "jobs.before_commit", "jobs.after_commit"])
async def test_a_death_at_any_step_of_a_run_leaves_one_effect(
    works: Works, tmp_path: Path, step: str
) -> None:
    with FailpointControl(tmp_path / "failpoints", f"{step}:1:kill") as control:
        works.stack.restart("llm", env={**control.environment, "JOBS_TICK": ""})
        try:
            await works.schedule(100)
            await wait_until(lambda: control.hits, 30, f"a kill at {step}")
            await works.wait_effects(1)
            await works.schedule(101)  # delivered after the repeats of the first
            await works.wait_effects(2)
        finally:
            works.stack.restart("llm", env={"JOBS_TICK": "*/2 * * * * *"})
    assert len(await works.effects()) == 2


@requirement("chaos:J1")
async def test_a_sidecar_that_dies_amid_a_run_does_not_repeat_it(works: Works) -> None:
    await works.schedule(110, mode="wait")
    await works.wait_tries(110)
    works.stack.kill("llm-daprd")
    works.stack.wait_ready("llm-daprd")
    await works.mend(110)
    await works.wait_effects(1)
    await works.schedule(111)
    await works.wait_effects(2)
    assert len(await works.tries(110)) == 1


@requirement("chaos:J1")
async def test_a_scheduler_that_dies_loses_no_run(works: Works) -> None:
    await works.schedule(120, seconds=2)
    await works.schedule(121, seconds=6)
    works.stack.kill("scheduler")
    await works.wait_effects(2, seconds=90)
    before = len(await works.effects("tick"))

    async def ticked() -> bool:
        return len(await works.effects("tick")) > before

    await wait_until(ticked, 60, "ticks after the scheduler's death", every=0.2)
    runs = [row["run"] for row in await works.effects("tick")]
    assert len(set(runs)) == len(runs)


@requirement("chaos:J1")
async def test_a_run_begins_again_when_its_process_is_stopped(works: Works) -> None:
    await works.schedule(130, mode="wait")
    await works.wait_tries(130)
    works.stack.restart("llm")
    await works.wait_tries(130, 2)
    await works.mend(130)
    await works.wait_effects(1)
