"""The stages of `poe test` and of `poe check`: what runs, after what, and in how many lanes."""

import hashlib
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from tests.support.newer_python import INTERPRETER, NEWER
from tests.support.port_offsets import SERVERS, offset_of

ROOT: Final = Path(__file__).parents[3]
PYTHON: Final = sys.executable
EDGE: Final = "services/edge"
MODEL: Final = "services/auth/model/emit"
LANES: Final = 2
"""Stages that run at the same time: one per core of the smallest machine that runs them."""
RUN_MINUTES: Final = 55.0
"""Time limit of a whole run, below that of CI, so that a run that is too slow still prints its summary."""
WHOLE_PERCENT: Final = "80"
"""Minimum branch coverage of services and workflows by unit, contract and component tests."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A command with a time limit in minutes.

    It starts after the stages named in `after`, those of a lower `rank` first, then the longest. `tests` stages are
    pytest's and write a JUnit report; `measured` ones write coverage data. How long a stage that `builds` takes depends
    on what the caches have, so it has no budget.
    """

    name: str
    command: tuple[str, ...]
    minutes: float = 5
    after: tuple[str, ...] = ()
    rank: int = 1
    tests: bool = False
    measured: bool = False
    builds: bool = False
    env: Mapping[str, str] = field(default_factory=dict[str, str])


def pytest_stage(
    name: str,
    minutes: float,
    *paths: str,
    measured: bool = False,
    after: tuple[str, ...] = (),
    env: Mapping[str, str] | None = None,
) -> Stage:
    """A stage of tests; `paths` are pytest's arguments, by default the folder of the stage's name."""
    run = ("-m", "coverage", "run", "-m", "pytest") if measured else ("-m", "pytest")
    return Stage(
        name,
        (PYTHON, *run, *(paths or (f"tests/{name}",))),
        minutes,
        after,
        tests=True,
        measured=measured,
        env={**temporary_root(name), **(env or {})},
    )


def temporary_root(stage: str) -> Mapping[str, str]:
    """Each stage of a checkout has its own root of temporary folders: pytest closes the root, for a moment, at start.

    Its path is short: the names of sockets below it have at most 107 characters.
    """
    own = hashlib.sha256(f"{ROOT} {stage}".encode()).hexdigest()[:6]
    return {"PYTEST_DEBUG_TEMPROOT": f"{tempfile.gettempdir()}/yocaso-{own}"}


def component_stage(part: str, *folders: str) -> Stage:
    """Component tests of some folders, with ports for the servers that they share."""
    return pytest_stage(
        f"component {part}",
        22,
        *(f"tests/component/{folder}" for folder in folders),
        measured=True,
        after=("programs",),
        env={"YOCASO_TEST_OFFSET": str(offset_of(f"{SERVERS} {part}"))},
    )


def _gate(name: str, *command: str, builds: bool = False) -> Stage:
    return Stage(name, command, 30 if builds else 10, rank=0, builds=builds)


CHECKS: Final = (
    _gate("types", "pyright"),
    _gate("lint", "ruff", "check", "--output-format=concise", "."),
    _gate("format", "ruff", "format", "--check", "--output-format=concise", "."),
    _gate("imports", "lint-imports", "--no-logo", "--config", ".importlinter"),
    _gate("emitted files", PYTHON, "-m", "services.codegen", "--check"),
    _gate("authorization model", "go", "run", "-C", MODEL, ".", "-check", builds=True),
)
EDGE_TESTS: Final = (
    _gate("edge vet", "go", "vet", "-C", EDGE, "./...", builds=True),
    _gate("edge tests", PYTHON, "-m", "tests.support.go_tests", EDGE, builds=True),
)
MODEL_VET: Final = _gate("model vet", "go", "vet", "-C", MODEL, "./...", builds=True)
PROGRAMS: Final = Stage(
    "programs", (PYTHON, "-m", "tests.support.programs"), 30, rank=0, builds=True
)
UNIT: Final = pytest_stage("unit", 5, measured=True)
MUTANTS: Final = Stage("mutants", (PYTHON, "-m", "tests.mutants", "--quick"), after=("unit",))
CONTRACT: Final = pytest_stage("contract", 5, measured=True, after=("programs",))
COMPONENT: Final = (
    component_stage("apps", "auth", "new_app", "upgrade"),
    component_stage("kit", "kit"),
    component_stage("cli", "cli"),
    component_stage("blocks", "bindings", "jobs", "objects", "pubsub"),
)
_COVERAGE: Final = (PYTHON, "-m", "coverage")
COVERAGE: Final = (
    Stage("combine coverage", (*_COVERAGE, "combine", "--quiet")),
    Stage(
        "coverage",
        (*_COVERAGE, "report", f"--fail-under={WHOLE_PERCENT}"),
        after=("combine coverage",),
    ),
    Stage(
        "coverage of rules",
        (*_COVERAGE, "report", "--include=*/domain.py,*/domain/*.py", "--fail-under=100"),
        after=("combine coverage",),
    ),
)
NEWER_PYTHON: Final = Stage(
    f"unit on {NEWER}",
    (PYTHON, "-m", "tests.support.newer_python", "tests/unit"),
    10,
    rank=2,
    tests=True,
    builds=True,
    env=temporary_root("newer"),
)


def whole_plan() -> tuple[Stage, ...]:
    """Every stage; that of the newer Python only where one is installed."""
    measured = (UNIT, CONTRACT, *COMPONENT)
    combine, *reports = COVERAGE
    return (
        *CHECKS,
        *EDGE_TESTS,
        MODEL_VET,
        PROGRAMS,
        *measured,
        MUTANTS,
        # The e2e tests of a new app, in "component apps", use the same ports.
        pytest_stage("e2e", 15, after=("programs", "component apps")),
        pytest_stage("chaos", 20, after=("programs",)),
        *([NEWER_PYTHON] if INTERPRETER else []),
        replace(combine, after=tuple(stage.name for stage in measured)),
        *reports,
    )


def named(stages: Iterable[Stage], name: str) -> tuple[Stage, ...]:
    """The stage of a name, or all whose name begins with that word."""
    stages = tuple(stages)
    exact = tuple(stage for stage in stages if stage.name == name)
    return exact or tuple(stage for stage in stages if stage.name.split()[0] == name)
