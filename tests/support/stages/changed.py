"""What `poe test --changed` runs: the gates, the contract tests, and the unit and component tests of what changed."""

import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.stages.durations import read_durations
from tests.support.stages.imports import ImportGraph
from tests.support.stages.plan import (
    CHECKS,
    EDGE,
    EDGE_TESTS,
    MODEL,
    MODEL_VET,
    Stage,
    pytest_stage,
)

MAIN: Final = "main"
COMPONENT_SECONDS: Final = 30.0
"""Component tests are chosen, nearest to the change first, until they take this long."""
UNKNOWN_SECONDS: Final = 10.0
"""Of a test file that has not run here yet."""
SHOWN: Final = 12
EVERYTHING: Final = ("pyproject.toml", "uv.lock")
"""Files on which every test depends."""
WHOLE_PLATFORM: Final = ("tests/e2e", "tests/chaos", "tests/faults")


class UnknownReferenceError(SystemExit):
    """Git does not know the reference."""


@dataclass(frozen=True, slots=True)
class ChangePlan:
    """Stages, and lines that say what was chosen and what was left out."""

    stages: tuple[Stage, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """Chosen test files; `left_out` has component tests for which there was no time."""

    unit: tuple[str, ...] = ()
    component: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def plan_of_change(root: Path, reference: str | None = None) -> ChangePlan:
    """The stages for what changed since the reference, by default since HEAD, or since main if nothing is uncommitted."""
    since, files = changed_files(root, reference)
    selection = select_tests(files, ImportGraph.read(root), read_durations())
    stages = (
        *CHECKS,
        *(EDGE_TESTS if _touch(files, EDGE) else ()),
        *([MODEL_VET] if _touch(files, MODEL) else ()),
        pytest_stage("contract", 5),
        *([pytest_stage("unit", 5, *selection.unit)] if selection.unit else ()),
        *([pytest_stage("component", 22, *selection.component)] if selection.component else ()),
    )
    return ChangePlan(stages, tuple(_notes(since, files, selection)))


def changed_files(root: Path, reference: str | None = None) -> tuple[str, list[Path]]:
    """What the files changed since, and the changed, added and deleted files."""
    uncommitted = _git(root, "status", "--porcelain", "--untracked-files=all")
    since = reference or ("HEAD" if uncommitted else _git(root, "merge-base", "HEAD", MAIN)[0])
    tracked = _git(root, "diff", "--name-only", "--no-renames", since, "--")
    untracked = _git(root, "ls-files", "--others", "--exclude-standard")
    return since, sorted({Path(name) for name in [*tracked, *untracked]})


def _git(root: Path, *arguments: str) -> list[str]:
    ran = subprocess.run(
        ("git", "-c", "core.quotePath=off", *arguments),
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode != 0:
        raise UnknownReferenceError(f"git {' '.join(arguments)}: {ran.stderr.strip()}")
    return ran.stdout.splitlines()


def select_tests(
    files: Iterable[Path], graph: ImportGraph, durations: Mapping[str, float]
) -> Selection:
    """Unit tests that depend on the files, and the nearest component tests that fit into the time."""
    files = list(files)
    if any(str(file) in EVERYTHING for file in files):
        return Selection(unit=("tests/unit",), left_out=("tests/component",))
    modules = [module for file in files if (module := graph.module(file))]
    modules += [each for file in files for each in graph.modules_that_read(file)]
    tests = graph.tests_of(modules)
    unit = sorted(str(path) for path in tests if path.parts[1] == "unit")
    component = [(far, str(path)) for path, far in tests.items() if path.parts[1] == "component"]
    chosen, left_out = _within(COMPONENT_SECONDS, sorted(component), durations)
    return Selection(tuple(unit), chosen, left_out)


def _within(
    seconds: float, tests: Sequence[tuple[int, str]], durations: Mapping[str, float]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Tests in order of their distance, as long as there is time; and the others."""
    chosen: list[str] = []
    for _, test in tests:
        took = durations.get(test, UNKNOWN_SECONDS)
        if took <= seconds:
            chosen.append(test)
            seconds -= took
    return tuple(chosen), tuple(test for _, test in tests if test not in chosen)


def _touch(files: Iterable[Path], folder: str) -> bool:
    return any(file.is_relative_to(folder) for file in files)


def _notes(since: str, files: Sequence[Path], selection: Selection) -> Iterator[str]:
    yield f"{len(files)} files changed since {since}"
    yield "chosen: the gates; all contract tests"
    yield from _listed("chosen unit tests", selection.unit)
    yield from _listed("chosen component tests", selection.component)
    yield from _listed("left out for time", selection.left_out)
    yield f"left out, as they run the whole platform: {', '.join(WHOLE_PLATFORM)}"
    rest = " ".join(selection.left_out) or "tests/e2e -k NAME"
    yield f"to run what was left out: uv run poe test -- {rest}; everything: uv run poe test"


def _listed(title: str, paths: Sequence[str]) -> Iterator[str]:
    if paths:
        more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
        yield f"{title}: {', '.join(paths[:SHOWN])}{more}"
