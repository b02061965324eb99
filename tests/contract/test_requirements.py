"""Every requirement has a source and a test, every test names known requirements, and deferred rows have none."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.contract.sources import ROOT
from tests.requirements import REQUIREMENTS, SOURCES, matrix, requirement

MAX_IDS = 5
"""A test that shows more promises than this shows none of them well."""
NAMED_FOLDERS = ("e2e", "chaos", "faults")
"""Here every test shows a promise; elsewhere some only guard a detail."""


@dataclass(frozen=True)
class Claim:
    """A test function and the ids that it names, by decorators, by its parameters' marks or by `pytestmark`."""

    test: str
    folder: str
    ids: tuple[str, ...]
    most: int
    """Ids that one case of the test names."""


def _ids(node: ast.AST) -> list[str]:
    """The ids of every `requirement(...)` call below a node."""
    found = list[str]()
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "requirement":
            assert all(isinstance(each, ast.Constant) for each in call.args), "an id is a literal"
            found += [str(each.value) for each in call.args if isinstance(each, ast.Constant)]
    return found


def claims_of(source: str, test: str, folder: str) -> Iterator[Claim]:
    """What the tests of a module claim."""
    tree = ast.parse(source)
    marks = [each.value for each in tree.body if isinstance(each, ast.Assign)]
    shared = [name for value in marks for name in _ids(value)]
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if not node.name.startswith("test_"):
            assert not _ids(node), f"{test}: {node.name} is no test"
            continue
        named = [name for each in node.decorator_list for name in _ids(each)]
        cases = [ids for each in node.decorator_list for ids in _ids_of_cases(each)]
        always = len(shared) + len(named) - sum(map(len, cases))
        most = always + max(map(len, cases), default=0)
        yield Claim(f"{test}: {node.name}", folder, (*shared, *named), most)


def _ids_of_cases(decorator: ast.expr) -> list[list[str]]:
    """The ids of each `pytest.param(...)` of a decorator."""
    calls = [each for each in ast.walk(decorator) if isinstance(each, ast.Call)]
    return [_ids(call) for call in calls if getattr(call.func, "attr", "") == "param"]


def claims() -> list[Claim]:
    """What all tests claim."""
    found = list[Claim]()
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        name = path.relative_to(ROOT / "tests")
        found += claims_of(path.read_text(), str(name), name.parts[0])
    return found


CLAIMS = claims()
CLAIMED = {name for claim in CLAIMS for name in claim.ids}


def _anchors(path: Path) -> set[str]:
    """Anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


@requirement("gates:requirements")
def test_every_id_named_by_a_test_exists() -> None:
    known = set(REQUIREMENTS)
    unknown = {f"{claim.test}: {name}" for claim in CLAIMS for name in {*claim.ids} - known}
    assert unknown == set()


@requirement("gates:requirements")
def test_every_requirement_has_a_test() -> None:
    assert set(REQUIREMENTS) - CLAIMED == set()


@requirement("gates:requirements")
def test_every_id_is_unique() -> None:
    assert [name for name, count in Counter(REQUIREMENTS).items() if count > 1] == []


@requirement("gates:requirements")
def test_no_test_claims_more_than_five_ids() -> None:
    assert [(claim.test, claim.most) for claim in CLAIMS if claim.most > MAX_IDS] == []


@requirement("gates:requirements")
def test_every_test_of_the_whole_platform_claims_something() -> None:
    found = [claim for claim in CLAIMS if claim.folder in NAMED_FOLDERS]
    assert {claim.folder for claim in found} == set(NAMED_FOLDERS)
    assert [claim.test for claim in found if not claim.ids] == []


@requirement("gates:requirements")
def test_a_row_of_the_matrix_is_shown_by_known_ids_or_deferred() -> None:
    written = re.findall(r"^\| (?!row|---)(\S+) \|", matrix.DOCUMENT.read_text(), re.MULTILINE)
    assert [row.name for row in matrix.ROWS] == written
    assert [name for name, count in Counter(written).items() if count > 1] == []
    assert [
        (row.name, row.shown_by)
        for row in matrix.ROWS
        if not set(row.shown_by) <= set(REQUIREMENTS) or not (row.shown_by or row.brought_by)
    ] == []


@requirement("gates:requirements")
def test_no_test_claims_a_deferred_row_and_every_claimed_one_says_so() -> None:
    rows = {f"chaos:{row.name}": row for row in matrix.ROWS}
    numbered = {name for name in REQUIREMENTS if re.fullmatch(r"chaos:[A-Z]+\d+", name)}
    assert {
        name for name in numbered if name not in rows or name not in rows[name].shown_by
    } == set()
    assert {f"chaos:{row.name}" for row in matrix.DEFERRED} & (CLAIMED | set(REQUIREMENTS)) == set()
    assert matrix.DEFERRED
    assert str(len(matrix.DEFERRED)) in matrix.summary()


@requirement("gates:requirements")
@pytest.mark.parametrize("source", [source for source, _ in SOURCES])
def test_a_source_exists_in_the_repository(source: str) -> None:
    name, _, anchor = source.partition("#")
    assert (ROOT / name).is_file()
    if anchor or (name.endswith(".md") and len(_anchors(ROOT / name)) > 1):
        assert anchor in _anchors(ROOT / name)


def test_claims_are_read_from_decorators_parameters_and_module_marks() -> None:
    source = """
pytestmark = [pytest.mark.timeout(1), requirement("a")]

@requirement("b", "c")
@pytest.mark.parametrize("x", [pytest.param(1, marks=requirement("d")), pytest.param(2, marks=[requirement("e", "f")])])
async def test_one(x): ...

def test_two(): ...
"""
    one, two = claims_of(source, "t", "e2e")
    assert (sorted(one.ids), one.most) == (["a", "b", "c", "d", "e", "f"], 5)
    assert (two.ids, two.most) == (("a",), 1)
