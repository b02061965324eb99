"""`python -m tests.support.stages [check | --only STAGE… | --changed [REF] | --set-budgets | PATH…]`.

Without arguments everything runs. Paths, and options before or behind them, are pytest's.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Final

from tests.requirements.matrix import summary as deferred
from tests.support.stages.budgets import Budgets, fixed_work, write_budgets
from tests.support.stages.changed import plan_of_change
from tests.support.stages.durations import add_durations
from tests.support.stages.lanes import Lanes, say
from tests.support.stages.plan import (
    CHECKS,
    LANES,
    NEWER_PYTHON,
    PYTHON,
    ROOT,
    RUN_MINUTES,
    Stage,
    named,
    whole_plan,
)
from tests.support.stages.running import Result
from tests.support.stages.summary import failed_stages, is_late, summary

USAGE: Final = "usage: stages [check | --only STAGE… | --changed [REF] | --set-budgets | PATH…]"


@dataclass(frozen=True, slots=True)
class Chosen:
    """Stages to run; with `judged` those over their budget fail, `sets_budgets` writes new budgets instead.

    `notes` are printed before the run, `remarks` before the totals.
    """

    stages: Sequence[Stage]
    lanes: int = LANES
    judged: bool = False
    sets_budgets: bool = False
    notes: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def main(arguments: Sequence[str]) -> int:
    """Run the chosen stages, also after a failure; exit code 0 if all passed."""
    os.chdir(ROOT)
    signal.signal(signal.SIGTERM, _interrupt)
    began = time.monotonic()
    chosen = choose(arguments)
    for note in chosen.notes:
        say(note)
    budgets = Budgets.read()
    work = fixed_work() if chosen.judged or chosen.sets_budgets else 0.0
    if any(stage.measured for stage in chosen.stages):
        subprocess.run((PYTHON, "-m", "coverage", "erase"), check=True)
    results = Lanes(
        chosen.stages,
        chosen.lanes,
        RUN_MINUTES * 60,
        expected=lambda stage: budgets.seconds.get(stage.name, stage.minutes * 60),
    ).run()
    add_durations(result.report for result in results)
    limits = _limits(results, budgets, work) if chosen.judged else {}
    seconds = time.monotonic() - began
    for line in [*chosen.remarks, *summary(results, limits, seconds)]:
        say(line)
    failed = failed_stages(results, limits)
    if chosen.sets_budgets and not failed:
        took = {each.stage.name: each.seconds for each in results if not each.stage.builds}
        write_budgets(took, work)
    return 1 if failed else 0


def _limits(results: Sequence[Result], budgets: Budgets, work: float) -> dict[str, int]:
    """Budgets on this machine; measured once more if a stage is late, as it may have become busy after the start."""
    if any(is_late(result, budgets.limits(work)) for result in results):
        work = max(work, fixed_work())
    if (factor := budgets.factor(work)) > 1:
        say(f"budgets are {factor:.2f} times those of tests/budgets.toml: this machine is slower")
    return budgets.limits(work)


def choose(arguments: Sequence[str]) -> Chosen:
    """The stages that the arguments choose."""
    match [each for each in arguments if each != "--"]:
        case []:
            return Chosen(whole_plan(), judged=True, remarks=_remarks())
        case ["--set-budgets"]:
            return Chosen(whole_plan(), sets_budgets=True, remarks=_remarks())
        case ["check"]:
            return Chosen(CHECKS)
        case ["--only", *names] if names and all(named(whole_plan(), name) for name in names):
            stages = [stage for name in names for stage in named(whole_plan(), name)]
            return Chosen(stages, judged=True)
        case ["--changed", *reference] if len(reference) <= 1:
            plan = plan_of_change(ROOT, *reference)
            return Chosen(plan.stages, notes=plan.notes)
        case [*selected] if any((ROOT / each.partition("::")[0]).exists() for each in selected):
            command = (PYTHON, "-m", "pytest", *selected)
            return Chosen((Stage("selected", command, 60, tests=True),), lanes=1)
        case _:
            names = ", ".join(["component", *(stage.name for stage in whole_plan())])
            raise SystemExit(f"{USAGE}\nstages: {names}")


def _remarks() -> tuple[str, ...]:
    """What a whole run does not show."""
    if NEWER_PYTHON in whole_plan():
        return (deferred(),)
    return (deferred(), f"not run: {NEWER_PYTHON.name}; no such Python was found")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
