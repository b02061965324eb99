"""`--changed` chooses the tests that depend on what changed, and says what it left out."""

import subprocess
from pathlib import Path

import pytest

from tests.requirements import requirement
from tests.support.stages.__main__ import choose
from tests.support.stages.changed import (
    COMPONENT_SECONDS,
    changed_files,
    plan_of_change,
    select_tests,
)
from tests.support.stages.imports import ImportGraph
from tests.support.stages.plan import ROOT

UNIT = "tests/unit"


@pytest.fixture(scope="module")
def graph() -> ImportGraph:
    return ImportGraph.read(ROOT)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with one commit on main, one on a branch, and nothing uncommitted."""
    git(tmp_path, "init", "-q", "-b", "main")
    commit(tmp_path, "kept.py", "gone.py", "read me.md")
    git(tmp_path, "checkout", "-q", "-b", "work")
    commit(tmp_path, "branch.py")
    return tmp_path


def git(root: Path, *arguments: str) -> None:
    author = ("-c", "user.name=test", "-c", "user.email=test@example.com")
    subprocess.run(("git", *author, *arguments), cwd=root, check=True, capture_output=True)


def commit(root: Path, *names: str) -> None:
    for name in names:
        (root / name).write_text(name)
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "a commit")


def chosen(graph: ImportGraph, *files: str, **durations: float) -> tuple[str, ...]:
    return select_tests([Path(file) for file in files], graph, durations).unit


@requirement("gates:changed")
def test_unit_tests_that_import_a_changed_module_are_chosen_and_no_others(
    graph: ImportGraph,
) -> None:
    unit = chosen(graph, "services/llm/domain.py")
    assert f"{UNIT}/llm/test_domain.py" in unit
    assert not [path for path in unit if path.startswith(f"{UNIT}/auth/")]


def test_an_import_by_way_of_another_module_counts(graph: ImportGraph) -> None:
    assert f"{UNIT}/kit/test_wait.py" not in chosen(graph, "services/kit/errors.py")
    assert f"{UNIT}/llm/test_domain.py" in chosen(graph, "services/kit/errors.py")


def test_a_changed_test_is_chosen_itself(graph: ImportGraph) -> None:
    own = f"{UNIT}/support/test_wait.py"
    assert chosen(graph, own) == (own,)


def test_a_changed_conftest_chooses_the_tests_below_it(graph: ImportGraph) -> None:
    selection = select_tests([Path("tests/component/objects/conftest.py")], graph, {})
    component = {Path(path).parent.name for path in selection.component}
    assert component == {"objects"}


def test_an_app_that_a_test_starts_by_name_or_by_its_template_counts(graph: ImportGraph) -> None:
    tests = graph.tests_of(["tests.component.jobs.app"])
    assert Path("tests/component/jobs/test_jobs.py") in tests


def test_a_template_of_tests_chooses_those_beside_it(graph: ImportGraph) -> None:
    selection = select_tests([Path("tests/component/jobs/dapr.yaml")], graph, {})
    assert "tests/component/jobs/test_jobs.py" in selection.component


@requirement("gates:changed")
def test_component_tests_are_chosen_nearest_first_while_there_is_time(graph: ImportGraph) -> None:
    files = [Path("services/auth/service/keys.py")]
    every = graph.tests_of(["services.auth.service.keys"])
    nearest = min((far, str(path)) for path, far in every.items() if path.parts[1] == "component")
    durations = {str(path): COMPONENT_SECONDS for path in every}
    selection = select_tests(files, graph, durations)
    assert selection.component == (nearest[1],)
    assert len(selection.left_out) > 5


def test_dependencies_choose_every_unit_test(graph: ImportGraph) -> None:
    assert chosen(graph, "uv.lock") == (UNIT,)


def test_uncommitted_changes_count_since_head(checkout: Path) -> None:
    (checkout / "kept.py").write_text("changed")
    (checkout / "gone.py").unlink()
    (checkout / "grün.py").write_text("new")
    since, files = changed_files(checkout)
    assert since == "HEAD"
    assert files == [Path("gone.py"), Path("grün.py"), Path("kept.py")]


def test_without_uncommitted_changes_those_of_the_branch_count(checkout: Path) -> None:
    _, files = changed_files(checkout)
    assert files == [Path("branch.py")]
    assert changed_files(checkout, "work") == ("work", [])


def test_an_unknown_reference_is_named(checkout: Path) -> None:
    with pytest.raises(SystemExit, match="nowhere"):
        changed_files(checkout, "nowhere")


@requirement("gates:changed")
def test_the_plan_has_the_gates_and_says_what_it_left_out() -> None:
    plan = plan_of_change(ROOT, "HEAD")
    names = [stage.name for stage in plan.stages]
    assert {"types", "lint", "imports", "contract"} <= set(names)
    assert not {"e2e", "chaos"} & set(names)
    assert any("left out" in note and "tests/e2e" in note for note in plan.notes)
    assert any("uv run poe test" in note for note in plan.notes)


def test_arguments_choose_stages() -> None:
    assert choose(["check"]).stages[0].name == "types"
    assert [stage.name for stage in choose(["--only", "unit", "contract"]).stages] == [
        "unit",
        "contract",
    ]
    assert {stage.name.split()[0] for stage in choose(["--only", "component"]).stages} == {
        "component"
    }
    assert choose([]).judged
    [selected] = choose(["--platform=host", "--", UNIT, "-k", "wait"]).stages
    assert selected.command[-4:] == ("--platform=host", UNIT, "-k", "wait")
    with pytest.raises(SystemExit, match="stages: component, types"):
        choose(["--only", "nothing"])
