"""Finds nondeterminism in workflow definitions, which are replayed from the start at every wake-up."""

import ast
from collections.abc import Iterator

FORBIDDEN_MODULES = frozenset(
    "aiohttp asyncio asyncpg contextvars datetime httpx io logging os pathlib random secrets shutil socket sqlalchemy "
    "structlog subprocess sys tempfile threading time urllib uuid valkey".split()
)
ALLOWED_NAMES = {"datetime": frozenset({"timedelta"})}
FORBIDDEN_CALLS = frozenset({"open", "print", "input", "eval", "exec", "__import__", "hash", "id"})
FORBIDDEN_ATTRIBUTES = frozenset(
    {"environ", "getenv", "now", "utcnow", "today", "monotonic", "uuid4", "urandom"}
)
WAITS = frozenset(
    {"call", "call_child", "continue_as_new", "sleep", "wait", "wait_for", "when_all", "when_any"}
)
"""Generators of the context: without `yield from` they do nothing."""


def breaches(source: str) -> list[str]:
    """Nondeterministic code of a workflow module, with line numbers."""
    return [f"line {line}: {what}" for line, what in sorted(_breaches(ast.parse(source)))]


def _breaches(tree: ast.AST) -> Iterator[tuple[int, str]]:
    waited = {node.value for node in ast.walk(tree) if isinstance(node, ast.YieldFrom)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node not in waited and (name := _wait(node)):
            yield node.lineno, f"ctx.{name}() without yield from"
        if isinstance(node, ast.stmt | ast.expr) and (what := _imported(node) or _done(node)):
            yield node.lineno, what


def _wait(call: ast.Call) -> str | None:
    match call.func:
        case ast.Attribute(value=ast.Name(id="ctx"), attr=name) if name in WAITS:
            return name
        case _:
            return None


def _imported(node: ast.AST) -> str | None:
    match node:
        case ast.Import(names=names):
            modules = [name.name for name in names]
            found = [module for module in modules if module.split(".")[0] in FORBIDDEN_MODULES]
            return f"import {', '.join(found)}" if found else None
        case ast.ImportFrom(module=str(module), names=names):
            root = module.split(".")[0]
            found = [name.name for name in names if name.name not in ALLOWED_NAMES.get(root, ())]
            return (
                f"from {module} import {', '.join(found)}"
                if root in FORBIDDEN_MODULES and found
                else None
            )
        case _:
            return None


def _done(node: ast.AST) -> str | None:
    match node:
        case ast.Await() | ast.AsyncFunctionDef() | ast.AsyncFor() | ast.AsyncWith():
            return "await"
        case ast.Call(func=ast.Name(id=name)) if name in FORBIDDEN_CALLS:
            return f"{name}()"
        case ast.Attribute(attr=name) if name in FORBIDDEN_ATTRIBUTES:
            return f".{name}"
        case ast.Yield():
            return "yield"
        case ast.Attribute(value=ast.Name(id="ctx"), attr=name) if name.startswith("_"):
            return f"ctx.{name}"
        case ast.For(iter=ast.Set() | ast.Call(func=ast.Name(id="set" | "frozenset"))):
            return "iteration over a set"
        case ast.Global(names=names):
            return f"global {', '.join(names)}"
        case _:
            return None
