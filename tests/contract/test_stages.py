"""The table of stages runs every folder of tests, and each stage has a budget."""

import pytest

from tests.contract.sources import ROOT
from tests.requirements import requirement
from tests.support.stages.budgets import Budgets
from tests.support.stages.plan import NEWER_PYTHON, Stage, whole_plan

PLAN = {stage.name: stage for stage in (*whole_plan(), NEWER_PYTHON)}
LONG = ROOT / "tests" / "faults"
"""Run by `poe long` only."""
FOLDERS = sorted({path.parent for path in (ROOT / "tests").rglob("test_*.py")} - {LONG})


@pytest.mark.parametrize("folder", [str(path.relative_to(ROOT)) for path in FOLDERS])
def test_every_folder_of_tests_is_in_a_stage(folder: str) -> None:
    paths = [argument for stage in PLAN.values() if stage.tests for argument in stage.command]
    assert any(folder == path or folder.startswith(f"{path}/") for path in paths)


@pytest.mark.parametrize("stage", PLAN.values(), ids=PLAN)
def test_what_a_stage_waits_for_is_in_the_table(stage: Stage) -> None:
    assert set(stage.after) <= PLAN.keys()


@requirement("gates:budgets")
def test_every_stage_has_a_budget_unless_it_builds() -> None:
    assert Budgets.read().seconds.keys() == {
        stage.name for stage in PLAN.values() if not stage.builds
    }


def test_coverage_is_reported_after_every_stage_that_measures_it() -> None:
    measured = {stage.name for stage in PLAN.values() if stage.measured}
    assert set(PLAN["combine coverage"].after) == measured


def test_stages_of_tests_have_their_own_temporary_folders_and_servers() -> None:
    stages = [stage for stage in PLAN.values() if stage.tests]
    roots = {stage.env["PYTEST_DEBUG_TEMPROOT"] for stage in stages}
    assert len(roots) == len(stages)
    offsets = [stage.env[key] for stage in stages if (key := "YOCASO_TEST_OFFSET") in stage.env]
    assert len(offsets) == len(set(offsets)) > 1
