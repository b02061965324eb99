"""Every requirement has a source and a test, and every test names known requirements."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.sources import ROOT
from tests.requirements import REQUIREMENTS, SOURCES


def _used() -> Iterator[tuple[str, Path]]:
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "requirement"
            ):
                for argument in node.args:
                    assert isinstance(argument, ast.Constant), f"{path.name}: an id is a literal"
                    yield str(argument.value), path


def _anchors(path: Path) -> set[str]:
    """Anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


def test_every_id_named_by_a_test_exists() -> None:
    assert {f"{path.name}: {name}" for name, path in _used() if name not in REQUIREMENTS} == set()


def test_every_requirement_has_a_test() -> None:
    assert set(REQUIREMENTS) - {name for name, _ in _used()} == set()


def test_every_id_is_unique() -> None:
    assert [name for name, count in Counter(REQUIREMENTS).items() if count > 1] == []


@pytest.mark.parametrize("source", [source for source, _ in SOURCES])
def test_a_source_exists_in_the_repository(source: str) -> None:
    name, _, anchor = source.partition("#")
    assert (ROOT / name).is_file()
    assert not anchor or anchor in _anchors(ROOT / name)
