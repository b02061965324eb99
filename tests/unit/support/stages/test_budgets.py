"""Budgets: twice what a stage took, more on a slower machine, never less."""

from pathlib import Path

from tests.requirements import requirement
from tests.support.stages.budgets import Budgets, fixed_work, write_budgets
from tests.support.stages.plan import Stage
from tests.support.stages.reports import Report
from tests.support.stages.running import Result
from tests.support.stages.summary import failed_stages, summary

TEN = Report(passed=8, failed=1, skipped=1, complete=True)


def result(name: str, seconds: float = 1, problem: str = "", *, begun: bool = True) -> Result:
    return Result(Stage(name, ()), seconds, problem, begun, TEN if begun else Report())


def test_written_budgets_are_read_again_with_margin_and_rounded_up(tmp_path: Path) -> None:
    file = tmp_path / "budgets.toml"
    write_budgets({"unit": 60.1, "component kit": 100, "lint": 0.2}, 0.25, file)
    assert Budgets.read(file) == Budgets(0.25, {"unit": 125, "component kit": 200, "lint": 30})


def test_budgets_grow_on_a_slower_machine_and_never_shrink() -> None:
    budgets = Budgets(0.5, {"unit": 100})
    assert budgets.limits(0.25) == {"unit": 100}
    assert budgets.limits(1.0) == {"unit": 200}


def test_the_fixed_work_takes_a_while_on_every_core() -> None:
    assert 0.01 < fixed_work() < 60


@requirement("gates:budgets")
def test_a_stage_over_its_budget_fails() -> None:
    results = [result("unit", 101), result("chaos", 99), result("new", 500)]
    limits = {"unit": 100, "chaos": 100, "absent": 1}
    assert failed_stages(results, limits) == ["unit"]
    lines = list(summary(results, limits, 200))
    assert any(line.split() == ["unit", "101.0", "100", "over", "its", "budget"] for line in lines)
    assert lines[-2] == "stages that failed: unit"
    assert lines[-1] == "24 passed, 3 failed, 3 skipped, 1 stages failed in 200s"


@requirement("gates:time-limit")
def test_a_stage_that_was_not_run_fails_and_is_in_the_summary() -> None:
    results = [result("e2e"), result("chaos", 0, "not run", begun=False)]
    lines = list(summary(results, {"chaos": 0}, 3300))
    assert any(line.split() == ["chaos", "not", "run"] or "not run" in line for line in lines)
    assert lines[-1] == "8 passed, 1 failed, 1 skipped, 1 stages failed in 3300s"


@requirement("gates:budgets")
def test_the_slowest_tests_are_listed_longest_first(tmp_path: Path) -> None:
    cases = "".join(
        f'<testcase classname="tests.unit.test_a" name="test_{n}" time="{n}"/>' for n in range(20)
    )
    file = tmp_path / "report.xml"
    file.write_text(f'<testsuite tests="20">{cases}</testsuite>')
    slow = Result(Stage("unit", ()), 190, report=Report.read(file))
    listed = [line for line in summary([slow, result("lint")], {}, 200) if "::" in line]
    assert len(listed) == 15
    assert listed[0].split() == ["19.0", "s", "tests/unit/test_a.py::test_19"]


def test_everything_passed_is_one_line_for_a_single_stage() -> None:
    passed = Result(Stage("selected", ()), 5, report=Report(passed=3, complete=True))
    assert list(summary([passed], {}, 5.4)) == [
        "3 passed, 0 failed, 0 skipped, 0 stages failed in 5s"
    ]
