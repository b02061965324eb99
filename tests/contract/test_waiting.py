"""Tests wait for conditions and never sleep."""

import ast

from tests.contract.sources import ROOT, python_files

SUPPORT = ROOT / "tests" / "support"


def test_no_test_sleeps() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in python_files()
        if path.name.startswith("test_") and SUPPORT not in path.parents
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and _is_sleep(node)
    ]
    assert found == []


def _is_sleep(call: ast.Call) -> bool:
    match call.func:
        case ast.Attribute(value=ast.Name(id="ctx")):  # a durable timer of a workflow
            return False
        case ast.Attribute(attr=name) | ast.Name(id=name):
            pass
        case _:
            return False
    yields = bool(call.args) and isinstance(call.args[0], ast.Constant) and call.args[0].value == 0
    return name == "sleep" and not yields
