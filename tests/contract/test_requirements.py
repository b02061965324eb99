"""Every promise has a test, and every test's promise exists."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.requirements import REQUIREMENTS

TESTS = Path(__file__).parents[1]


def _used() -> Iterator[tuple[str, Path]]:
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "requirement"
            ):
                for argument in node.args:
                    assert isinstance(argument, ast.Constant), f"{path.name}: an id is a literal"
                    yield str(argument.value), path


def test_every_id_that_a_test_names_is_in_the_manifest() -> None:
    assert (
        sorted({f"{path.name}: {name}" for name, path in _used() if name not in REQUIREMENTS}) == []
    )


def test_every_promise_has_a_test() -> None:
    assert sorted(REQUIREMENTS.keys() - {name for name, _ in _used()}) == []
