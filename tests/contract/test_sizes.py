"""Limits on the length of files and functions."""

import ast
import re
from pathlib import Path

from tests.contract.sources import ROOT, go_files, python_files
from tests.requirements import requirement

MAX_FILE = 400
MAX_FUNCTION = 60


def long_python_functions(source: str) -> list[str]:
    return [
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > MAX_FUNCTION
    ]


def long_go_functions(source: str) -> list[str]:
    found = re.finditer(r"^func (?:\([^)]*\) )?(\w+).*?^}", source, re.MULTILINE | re.DOTALL)
    return [match[1] for match in found if match[0].count("\n") + 1 > MAX_FUNCTION]


@requirement("gates:size")
def test_no_file_is_longer_than_400_lines() -> None:
    files = [*python_files(), *go_files()]
    assert [_name(path) for path in files if path.read_text().count("\n") > MAX_FILE] == []


@requirement("gates:size")
def test_no_function_is_longer_than_60_lines() -> None:
    # A migration is one list of statements.
    code = [path for path in python_files() if path.parent.name != "migrations"]
    python = [(path, long_python_functions(path.read_text())) for path in code]
    go = [(path, long_go_functions(path.read_text())) for path in go_files()]
    assert [f"{_name(path)}: {names}" for path, names in [*python, *go] if names] == []


def test_a_long_function_is_found_in_either_language() -> None:
    body = "    x = 1\n" * MAX_FUNCTION
    assert long_python_functions(f"def f():\n{body}") == ["f"]
    assert long_python_functions("def f():\n    pass\n") == []
    assert long_go_functions("func (s *S) f() {\n" + "\tx()\n" * MAX_FUNCTION + "}\n") == ["f"]
    assert long_go_functions("func f() {\n}\nfunc g() {\n}\n") == []


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))
