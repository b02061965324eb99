"""Runs the gates and every kind of test in stages, and prints the totals.

`python -m tests.support.stages [check | --only STAGE | PATH…]`; paths and options behind them are pytest's.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
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
    env: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(slots=True)
class Outcome:
    """Test counts, and the stages that failed."""

    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("passed", "failed", "skipped"), 0)
    )
    failed: list[str] = field(default_factory=list)


Lanes = tuple[Stage, ...]
"""Stages that run at the same time."""


def _pytest(
    name: str,
    minutes: float,
    *folders: str,
    measured: bool = False,
    env: Mapping[str, str] | None = None,
) -> Stage:
    run = ("-m", "coverage", "run", "-m", "pytest") if measured else ("-m", "pytest")
    paths = folders or (f"tests/{name}",)
    return Stage(
        name, (PYTHON, *run, *paths), minutes, tests=True, measured=measured, env=env or {}
    )


def _folders(is_chosen: Callable[[str], bool]) -> tuple[str, ...]:
    """The folders of component tests whose name is chosen."""
    packages = sorted(path.parent for path in (ROOT / "tests" / "component").glob("*/__init__.py"))
    return tuple(str(path.relative_to(ROOT)) for path in packages if is_chosen(path.name))


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
)
SECOND_ROOT: Final = Path(tempfile.gettempdir()) / "yocaso-second-lane"
FIRST_LANE: Final = ("auth", "cli", "new_app")
COMPONENT: Final[Lanes] = (
    _pytest("component apps", 22, *_folders(lambda name: name in FIRST_LANE), measured=True),
    _pytest(
        "component blocks",
        22,
        *_folders(lambda name: name not in FIRST_LANE),
        measured=True,
        env={"YOCASO_TEST_OFFSET": "20000", "PYTEST_DEBUG_TEMPROOT": str(SECOND_ROOT)},
    ),
)
"""In two lanes, as they mostly wait for processes. The shared servers of each have their own ports, and each its own
root of temporary folders: pytest closes the root, for a moment, when it starts."""
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
STAGES: Final[tuple[Stage | Lanes, ...]] = (
    *CHECKS,
    Stage("edge vet", ("go", "vet", "-C", EDGE, "./..."), 10),
    Stage("model vet", ("go", "vet", "-C", MODEL, "./..."), 10),
    Stage("edge tests", ("go", "test", "-C", EDGE, "./..."), 10),
    Stage("programs", (PYTHON, "-m", "tests.support.programs"), 30),
    *MEASURED,
    COMPONENT,
    *COVERAGE,
    _pytest("e2e", 15),
    _pytest("chaos", 20),
)


def main(arguments: Sequence[str]) -> int:
    """Run the chosen stages, also after a failure; exit code 0 if all passed."""
    os.chdir(ROOT)
    SECOND_ROOT.mkdir(exist_ok=True)
    stages = _chosen(arguments)
    outcome = Outcome()
    began = time.monotonic()
    lanes = [stage if isinstance(stage, tuple) else (stage,) for stage in stages]
    if any(stage.measured for each in lanes for stage in each):
        subprocess.run((PYTHON, "-m", "coverage", "erase"), check=True)
    for each in lanes:
        _run_lanes(each, outcome)
    if outcome.failed:
        _say(f"stages that failed: {', '.join(outcome.failed)}")
    counts = ", ".join(f"{number} {name}" for name, number in outcome.counts.items())
    _say(f"{counts}, {len(outcome.failed)} stages failed in {time.monotonic() - began:.0f}s")
    return 1 if outcome.failed else 0


def _chosen(arguments: Sequence[str]) -> Sequence[Stage | Lanes]:
    match [each for each in arguments if each != "--"]:
        case []:
            return STAGES
        case ["check"]:
            return CHECKS
        case ["--only", "component"]:
            return [COMPONENT]
        case ["--only", name] if found := [stage for stage in _single() if stage.name == name]:
            return found
        case [path, *_] as selected if (ROOT / path.partition("::")[0]).exists():
            return (Stage("selected", (PYTHON, "-m", "pytest", *selected), 60, tests=True),)
        case _:
            names = ", ".join(["component", *(stage.name for stage in _single())])
            raise SystemExit(f"usage: stages [check | --only STAGE | PATH…]\nstages: {names}")


def _single() -> list[Stage]:
    """Every stage, also those of lanes."""
    lanes = [stage if isinstance(stage, tuple) else (stage,) for stage in STAGES]
    return [stage for each in lanes for stage in each]


def _run_lanes(lanes: Lanes, outcome: Outcome) -> None:
    """Run stages at the same time; the output of all but the first follows when they have ended."""
    first, *others = lanes
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor() as pool:
        outputs = [Path(folder) / f"{place}.txt" for place in range(len(others))]
        running = [
            pool.submit(_run, stage, outcome, output)
            for stage, output in zip(others, outputs, strict=True)
        ]
        _run(first, outcome, None)
        for lane, output in zip(running, outputs, strict=True):
            lane.result()
            _say(output.read_text())


def _run(stage: Stage, outcome: Outcome, output: Path | None) -> None:
    _say(f"== {stage.name}: {' '.join(stage.command).replace(PYTHON, 'python')}")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = (*stage.command, f"--junitxml={report}") if stage.tests else stage.command
        code = _bounded(command, stage, output)
        if stage.tests:
            _count(report, outcome)
    verdict = "passed" if code == 0 else f"FAILED ({code})"
    _say(f"== {stage.name} {verdict} in {time.monotonic() - began:.1f}s")
    if code != 0:
        outcome.failed.append(stage.name)


def _bounded(command: Sequence[str], stage: Stage, output: Path | None) -> int | str:
    """The exit code of a command; on timeout it is interrupted, to let it clean up, then killed."""
    seconds = stage.minutes * 60
    with output.open("w") if output else nullcontext() as file:
        process = subprocess.Popen(
            command,
            start_new_session=True,
            env={**os.environ, **stage.env},
            stdout=file,
            stderr=subprocess.STDOUT if file else None,
        )
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
