"""Runs the gates and every kind of test in stages, and prints the totals.

`python -m tests.support.stages [check | --only STAGE | PATH…]`; paths and options behind them are pytest's.
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
"""Minimum branch coverage of services and workflows by unit, contract and component tests."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A command with a timeout in minutes; `tests` stages write a JUnit report, `measured` ones coverage data."""

    name: str
    command: tuple[str, ...]
    minutes: float = 5
    tests: bool = False
    measured: bool = False


@dataclass(slots=True)
class Outcome:
    """Test counts, and the stages that failed."""

    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("passed", "failed", "skipped"), 0)
    )
    failed: list[str] = field(default_factory=list)


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
    """Run the chosen stages, also after a failure; exit code 0 if all passed."""
    os.chdir(ROOT)
    stages = _chosen(arguments)
    outcome = Outcome()
    began = time.monotonic()
    if any(stage.measured for stage in stages):
        subprocess.run((PYTHON, "-m", "coverage", "erase"), check=True)
    for stage in stages:
        _run(stage, outcome)
    if outcome.failed:
        _say(f"stages that failed: {', '.join(outcome.failed)}")
    counts = ", ".join(f"{number} {name}" for name, number in outcome.counts.items())
    _say(f"{counts}, {len(outcome.failed)} stages failed in {time.monotonic() - began:.0f}s")
    return 1 if outcome.failed else 0


def _chosen(arguments: Sequence[str]) -> Sequence[Stage]:
    match [each for each in arguments if each != "--"]:
        case []:
            return STAGES
        case ["check"]:
            return CHECKS
        case ["--only", name] if found := [stage for stage in STAGES if stage.name == name]:
            return found
        case [path, *_] as selected if (ROOT / path.partition("::")[0]).exists():
            return (Stage("selected", (PYTHON, "-m", "pytest", *selected), 60, tests=True),)
        case _:
            names = ", ".join(stage.name for stage in STAGES)
            raise SystemExit(f"usage: stages [check | --only STAGE | PATH…]\nstages: {names}")


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
        outcome.failed.append(stage.name)


def _bounded(command: Sequence[str], seconds: float) -> int | str:
    """The exit code of a command; on timeout it is interrupted, to let it clean up, then killed."""
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
