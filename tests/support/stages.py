"""Runs the gates and every kind of test, one stage after another, and ends with the sums.

`python -m tests.support.stages [check | --only STAGE]`
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

ROOT: Final = Path(__file__).parents[2]
EDGE: Final = "services/edge"
MODEL: Final = "services/auth/model/emit"
PYTHON: Final = sys.executable
GRACE_SECONDS: Final = 60
WHOLE_PERCENT: Final = "80"
"""Of services and workflows, branches counted: what unit, contract and component tests run, apps included."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A command with a bound in minutes; `tests` stages leave a JUnit report, `measured` ones their coverage."""

    name: str
    command: tuple[str, ...]
    minutes: float = 5
    tests: bool = False
    measured: bool = False


@dataclass(slots=True)
class Outcome:
    """What the stages came to."""

    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("passed", "failed", "skipped"), 0)
    )
    broken: list[str] = field(default_factory=list)


def _pytest(name: str, minutes: float, *, measured: bool = False) -> Stage:
    run = ("-m", "coverage", "run", "-m", "pytest") if measured else ("-m", "pytest")
    return Stage(name, (PYTHON, *run, f"tests/{name}"), minutes, tests=True, measured=measured)


CHECKS: Final = (
    Stage("lint", ("ruff", "check", "--output-format=concise", ".")),
    Stage("format", ("ruff", "format", "--check", "--output-format=concise", ".")),
    Stage("types", ("pyright",)),
    Stage("imports", ("lint-imports", "--no-logo", "--config", ".importlinter")),
    Stage("emitted files", (PYTHON, "-m", "services.codegen", "--check")),
    Stage("authorization model", ("go", "run", "-C", MODEL, ".", "-check")),
)
MEASURED: Final = (
    _pytest("unit", 5, measured=True),
    _pytest("contract", 5, measured=True),
    _pytest("component", 15, measured=True),
)
COVERAGE: Final = (
    Stage("combine coverage", (PYTHON, "-m", "coverage", "combine", "--quiet")),
    Stage("coverage", (PYTHON, "-m", "coverage", "report", f"--fail-under={WHOLE_PERCENT}")),
    Stage(
        "coverage of rules",
        (
            PYTHON,
            "-m",
            "coverage",
            "report",
            "--include=*/domain.py,*/domain/*.py",
            "--fail-under=100",
        ),
    ),
)
STAGES: Final = (
    *CHECKS,
    Stage("edge vet", ("go", "vet", "-C", EDGE, "./..."), 10),
    Stage("model vet", ("go", "vet", "-C", MODEL, "./..."), 10),
    Stage("edge tests", ("go", "test", "-C", EDGE, "./..."), 10),
    Stage("programs", (PYTHON, "-m", "tests.support.programs"), 30),
    *MEASURED,
    *COVERAGE,
    _pytest("e2e", 15),
    _pytest("chaos", 20),
)


def main(arguments: Sequence[str]) -> int:
    """Run what is asked, all of it even when a stage fails; the exit code is 0 only when every stage passed."""
    os.chdir(ROOT)
    stages = _chosen(arguments)
    outcome = Outcome()
    began = time.monotonic()
    if any(stage.measured for stage in stages):
        subprocess.run((PYTHON, "-m", "coverage", "erase"), check=True)
    for stage in stages:
        _run(stage, outcome)
    if outcome.broken:
        _say(f"stages that failed: {', '.join(outcome.broken)}")
    counts = ", ".join(f"{number} {name}" for name, number in outcome.counts.items())
    _say(f"{counts}, {len(outcome.broken)} stages failed in {time.monotonic() - began:.0f}s")
    return 1 if outcome.broken else 0


def _chosen(arguments: Sequence[str]) -> Sequence[Stage]:
    match list(arguments):
        case []:
            return STAGES
        case ["check"]:
            return CHECKS
        case ["--only", name] if found := [stage for stage in STAGES if stage.name == name]:
            return found
        case _:
            raise SystemExit(
                f"usage: stages [check | --only {{{','.join(s.name for s in STAGES)}}}]"
            )


def _run(stage: Stage, outcome: Outcome) -> None:
    _say(f"== {stage.name}: {' '.join(stage.command).replace(PYTHON, 'python')}")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = (*stage.command, f"--junitxml={report}") if stage.tests else stage.command
        code = _bounded(command, stage.minutes * 60)
        if stage.tests:
            _count(report, outcome)
    verdict = "passed" if code == 0 else f"FAILED ({code})"
    _say(f"== {stage.name} {verdict} in {time.monotonic() - began:.1f}s")
    if code != 0:
        outcome.broken.append(stage.name)


def _bounded(command: Sequence[str], seconds: float) -> int | str:
    """The exit code; past its bound a command is interrupted, so that it can still clean up, then killed."""
    process = subprocess.Popen(command, start_new_session=True)
    try:
        return process.wait(seconds)
    except (subprocess.TimeoutExpired, KeyboardInterrupt) as reason:
        os.killpg(process.pid, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        if isinstance(reason, KeyboardInterrupt):
            raise
        return f"over {seconds:.0f}s"


def _count(report: Path, outcome: Outcome) -> None:
    if not report.exists():
        return
    for suite in ElementTree.parse(report).getroot().iter("testsuite"):
        numbers = {
            name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")
        }
        failed = numbers["failures"] + numbers["errors"]
        outcome.counts["failed"] += failed
        outcome.counts["skipped"] += numbers["skipped"]
        outcome.counts["passed"] += numbers["tests"] - failed - numbers["skipped"]


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
