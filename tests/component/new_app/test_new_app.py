"""A new app costs its own folders: all else follows from its manifest."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.requirements import requirement

ROOT = Path(__file__).parents[3]
NOTES = Path(__file__).parent / "notes"
"""What somebody writes by hand to give `notes` two methods, an actor, a table and a workflow."""
FOLDERS = {
    "contracts": "services/contracts/notes",
    "service": "services/notes",
    "workflow": "workflows/notes",
    "unit": "tests/unit/notes",
    "e2e": "tests/e2e/notes",
}
CONCERNED = "not (its_own_extra and not (notes or hello)) and not load_without and not dsl_change"
"""Contract tests whose outcome two new apps can change: other apps still load with what they import."""
NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv", ".*_cache", ".hypothesis", ".coverage*", ".yocaso", "__pycache__"
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with two new apps: `notes`, which grew, and `hello` as it was written."""
    copy = tmp_path_factory.mktemp("new-app") / "yocaso"
    shutil.copytree(ROOT, copy, ignore=NOT_COPIED)
    before = contents(copy)
    for name in ("notes", "hello"):
        run(copy, "python", "-m", "services.codegen.new_app", name)
    for source, target in FOLDERS.items():
        for file in sorted((NOTES / source).rglob("*.txt")):
            written = copy / target / file.relative_to(NOTES / source).with_suffix("")
            written.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, written)
    changed = {path for path, digest in contents(copy).items() if before.get(path) != digest}
    assert {path.parts[-2] for path in changed if path.name == "app.py"} == {"notes", "hello"}
    assert [path for path in changed if not {"notes", "hello"} & set(path.parts)] == []
    run(copy, "python", "-m", "services.codegen")
    run(copy, "git", "init", "-q")  # the gates ask it for the files
    return copy


@requirement("kit:new-app")
@pytest.mark.timeout(300)
def test_the_gates_hold_with_two_new_apps(tree: Path) -> None:
    folders = [str(path.relative_to(tree)) for path in tree.rglob("*") if is_new(path)]
    run(tree, "ruff", "check", "--output-format=concise", *folders)
    run(tree, "ruff", "format", "--check", *folders)
    run(tree, "pyright", *folders)
    run(tree, "python", "-m", "services.codegen", "--check")
    run(
        tree,
        "python",
        "-m",
        "pytest",
        "-q",
        "-k",
        CONCERNED,
        "tests/contract",
        "tests/unit/notes",
        "tests/unit/hello",
    )
    run(tree, "lint-imports", "--no-logo", "--config", ".importlinter")


@requirement("kit:new-app")
@pytest.mark.timeout(300)
def test_both_apps_answer_through_the_edge(tree: Path) -> None:
    run(tree, "python", "-m", "pytest", "-q", "tests/e2e/notes", "tests/e2e/hello")


@pytest.mark.parametrize("name", ["llm", "Notes", "two words", "kit", ""])
def test_a_name_that_cannot_be_an_apps_is_refused(name: str) -> None:
    command = (sys.executable, "-m", "services.codegen.new_app", name)
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "new-app: error:" in refused.stderr


def is_new(path: Path) -> bool:
    """Whether a path is the top folder of a new app."""
    return path.is_dir() and path.name in ("notes", "hello") and path.parent.name != "new_app"


def contents(tree: Path) -> dict[Path, str]:
    """The digest of every file."""
    files = [path for path in tree.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {path.relative_to(tree): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def run(tree: Path, *command: str) -> None:
    """Run a command in the copy; what it printed is shown where it fails."""
    # What runs in the copy is not measured: its files are gone when coverage is reported.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    temporary = tree.with_name(
        "tmp"
    )  # pytest closes its root at start: not that of the servers here
    temporary.mkdir(exist_ok=True)
    env["PYTEST_DEBUG_TEMPROOT"] = str(temporary)
    ended = subprocess.run(
        command,
        cwd=tree,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, f"{' '.join(command)}:\n{ended.stdout}"
