"""Stages run side by side, in order, within limits; a failure or a limit never hides the others' results."""

import sys
import time
from pathlib import Path

import pytest

from tests.requirements import requirement
from tests.support.stages import lanes, running
from tests.support.stages.lanes import Lanes
from tests.support.stages.plan import Stage
from tests.support.stages.running import Result

MEETING = """
import pathlib, sys, time
mine, other = map(pathlib.Path, sys.argv[1:])
mine.touch()
deadline = time.monotonic() + 20
while not other.exists():
    assert time.monotonic() < deadline
    time.sleep(0.01)
"""
HANGING = """
import pathlib, sys, time
try:
    pathlib.Path(sys.argv[1]).touch()
    time.sleep(60)
except KeyboardInterrupt:
    print("cleaned up")
"""
STUBBORN = """
import pathlib, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
pathlib.Path(sys.argv[1]).touch()
time.sleep(60)
"""
PYTEST = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider")
QUICK = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
"""Without plugins, of which one would change the order."""
SECONDS = 60.0


def stage(name: str, code: str = "", *arguments: Path, **options) -> Stage:
    return Stage(name, (sys.executable, "-c", code, *map(str, arguments)), **options)


def sample_of(file: Path, *lines: str) -> Stage:
    file.write_text("\n".join(lines))
    command = (*PYTEST, "--rootdir", str(file.parent), str(file))
    return Stage("sample", command, tests=True, env=QUICK)


@pytest.fixture
def ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file; an hour passes once it exists."""
    file = tmp_path / "ready"

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return time.monotonic() + (3600 if file.exists() else 0)

    monkeypatch.setattr(lanes, "time", Clock)
    monkeypatch.setattr(running, "time", Clock)
    return file


def verdicts(results: list[Result]) -> dict[str, str]:
    return {result.stage.name: result.verdict for result in results}


@requirement("gates:lanes")
def test_stages_run_at_the_same_time(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    meeting = [stage("a", MEETING, a, b), stage("b", MEETING, b, a)]
    assert verdicts(Lanes(meeting, 2, SECONDS).run()) == {"a": "passed", "b": "passed"}


def test_no_more_stages_run_than_there_are_lanes(tmp_path: Path) -> None:
    took = (
        "import pathlib, sys; pathlib.Path(sys.argv[1]).mkdir(); pathlib.Path(sys.argv[1]).rmdir()"
    )
    alone = [stage(str(number), took, tmp_path / "alone") for number in range(4)]
    assert set(verdicts(Lanes(alone, 1, SECONDS).run()).values()) == {"passed"}


@requirement("gates:lanes")
def test_a_lower_rank_goes_first_then_the_longest_and_never_before_what_it_waits_for() -> None:
    stages = [
        stage("report", after=("long", "gate")),
        stage("short"),
        stage("long"),
        stage("gate", rank=0),
    ]
    expected = {"report": 9, "long": 5, "short": 1, "gate": 0}
    results = Lanes(stages, 1, SECONDS, expected=lambda each: expected[each.name]).run()
    assert [result.stage.name for result in results] == ["gate", "long", "report", "short"]


def test_a_stage_that_is_not_chosen_is_not_waited_for() -> None:
    assert verdicts(Lanes([stage("report", after=("tests",))], 1, SECONDS).run()) == {
        "report": "passed"
    }


def test_stages_run_also_after_a_failure() -> None:
    stages = [stage("bad", "raise SystemExit(3)"), stage("after", after=("bad",))]
    assert verdicts(Lanes(stages, 1, SECONDS).run()) == {"bad": "FAILED (3)", "after": "passed"}


@requirement("gates:time-limit")
def test_a_stage_over_its_limit_is_interrupted_so_that_it_can_clean_up(
    ready: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = Lanes([stage("slow", HANGING, ready), stage("other")], 2, 2 * 3600).run()
    assert verdicts(results) == {"other": "passed", "slow": "over its limit of 300s"}
    assert "cleaned up" in capsys.readouterr().out


def test_a_stage_that_ignores_the_interrupt_is_killed(ready: Path) -> None:
    began = time.monotonic()
    [result] = Lanes([stage("stubborn", STUBBORN, ready)], 1, 2 * 3600, grace=0.1).run()
    assert result.problem == "over its limit of 300s"
    assert time.monotonic() - began < 60


@requirement("gates:time-limit")
def test_at_the_time_limit_of_the_run_the_rest_is_not_run(ready: Path) -> None:
    hanging = stage("hangs", HANGING, ready, rank=0, minutes=120)
    results = Lanes([hanging, stage("later"), stage("last")], 1, SECONDS).run()
    assert verdicts(results) == {
        "later": "not run",
        "last": "not run",
        "hangs": "stopped at the time limit of the whole run",
    }
    assert [result.begun for result in results] == [False, False, True]


def test_ctrl_c_interrupts_what_runs_and_still_returns_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs = tmp_path / "hangs"
    wait = lanes.select.select
    presses = iter([KeyboardInterrupt()])

    def press_once(*arguments):
        if hangs.exists():
            for press in presses:
                raise press
        return wait(*arguments)

    monkeypatch.setattr(lanes.select, "select", press_once)
    results = Lanes([stage("hangs", HANGING, hangs, rank=0), stage("later")], 1, SECONDS).run()
    assert verdicts(results) == {"later": "not run", "hangs": "interrupted"}


@pytest.mark.timeout(60)
@requirement("gates:progress")
def test_while_stages_run_their_time_and_tests_are_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    shown = tmp_path / "shown"

    def say(text: str) -> None:
        said.append(text)
        if "(2 of 3 tests, 1 failed)" in text:
            shown.touch()

    monkeypatch.setattr(lanes, "say", say)
    sample = sample_of(
        tmp_path / "test_sample.py",
        "import pathlib, time",
        "def test_quick(): pass",
        "def test_wrong(): raise AssertionError('wrong')",
        "def test_slow():",
        f"    while not pathlib.Path({str(shown)!r}).exists(): time.sleep(0.01)",
    )
    results = Lanes([sample, stage("quick")], 2, SECONDS, progress_every=0).run()
    text = "\n".join(said)
    assert "| 0 stages wait" in text
    assert text.index("-- FAILED test_sample.py::test_wrong") < text.index("== sample: ")
    [report] = [each.report for each in results if each.stage.tests]
    assert (report.passed, report.failed, report.skipped) == (2, 1, 0)
    assert verdicts(results)["sample"] == "FAILED (1)"


@pytest.mark.timeout(60)
@requirement("gates:time-limit")
def test_an_interrupted_stage_of_tests_still_reports_those_that_ran(
    tmp_path: Path, ready: Path
) -> None:
    sample = sample_of(
        tmp_path / "test_sample.py",
        "import pathlib, time",
        "def test_quick(): pass",
        "def test_hangs():",
        f"    pathlib.Path({str(ready)!r}).touch()",
        "    time.sleep(60)",
        "def test_last(): pass",
    )
    [result] = Lanes([sample], 1, 2 * 3600).run()
    assert result.report.passed == 1
    assert result.problem == "over its limit of 300s"


@pytest.mark.timeout(60)
def test_tests_without_a_report_fail_and_name_the_last_test(tmp_path: Path) -> None:
    dying = sample_of(tmp_path / "test_sample.py", "import os", "def test_dies(): os._exit(0)")
    [result] = Lanes([dying], 1, SECONDS).run()
    assert result.problem == "FAILED, without a report during test_sample.py::test_dies"
