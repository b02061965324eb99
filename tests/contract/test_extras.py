"""An app needs only the core dependencies and its own extra of `pyproject.toml`."""

import ast
import functools
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any, Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from services.contracts.apps import APPS
from services.kit.manifest import App, Language
from tests.contract.sources import ROOT
from tests.requirements import requirement

PROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: Final[dict[str, list[str]]] = PROJECT["optional-dependencies"]
LOCAL: Final = "local"
"""The servers of `yocaso up`, which are no part of an app."""
DEVELOPMENT: Final = {"watchfiles"}
"""Of the `dev` group; `yocaso dev` imports it when it runs."""
PYTHON_APPS: Final = [app for app in APPS if app.language is Language.PYTHON]
FOLDERS: Final = {app.folder: app.id for app in PYTHON_APPS}

IMPORT: Final = """
import importlib, pkgutil, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name in REFUSED:
            raise ModuleNotFoundError(f"{name} is in an extra that is not installed", name=name)

sys.meta_path.insert(0, Refuse())
package = importlib.import_module(PACKAGE)
for module in pkgutil.walk_packages(package.__path__, PACKAGE + "."):
    if not module.name.rpartition(".")[2][0].isdigit():  # Alembic loads migrations by path
        importlib.import_module(module.name)
"""


@functools.cache
def installed() -> dict[str, Distribution]:
    """Installed distributions by canonical name."""
    return {canonicalize_name(each.metadata["Name"]): each for each in distributions()}


@functools.cache
def owners() -> dict[str, str]:
    """The distribution of every importable module; namespaces such as `google` have no owner."""
    found: dict[str, str] = {}
    for name, distribution in installed().items():
        for file in distribution.files or ():
            if module := module_of(file.parts):
                found.setdefault(module, name)
    return found


def module_of(parts: tuple[str, ...]) -> str | None:
    """The dotted name of a Python file or extension module."""
    stem, _, kind = parts[-1].partition(".")
    if not kind.endswith(("py", "so", "pyd")) or not all(
        map(str.isidentifier, (*parts[:-1], stem))
    ):
        return None
    return ".".join(parts[:-1] if stem == "__init__" else (*parts[:-1], stem))


def closure(requirements: Iterable[str]) -> set[str]:
    """The distributions that are installed with these requirements."""
    found: set[tuple[str, str]] = set()
    waiting = [(Requirement(each), "") for each in requirements]
    while waiting:
        wanted, outer = waiting.pop()
        if wanted.marker and not wanted.marker.evaluate({"extra": outer}):
            continue
        name = canonicalize_name(wanted.name)
        for extra in ("", *wanted.extras):
            if (name, extra) not in found and name in installed():
                found.add((name, extra))
                waiting += [(Requirement(each), extra) for each in installed()[name].requires or ()]
    return {name for name, _ in found}


def allowed(*extras: str) -> set[str]:
    """What is installed with the core dependencies and some extras."""
    return closure([*PROJECT["dependencies"], *(each for name in extras for each in EXTRAS[name])])


def imported(source: str) -> Iterator[str]:
    """Modules that a file imports at run time, also inside functions and by `import_module`."""
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                waiting += node.orelse
                continue
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom(module=str(module), level=0):
                yield from (f"{module}.{alias.name}" for alias in node.names)
            case ast.Call(
                func=ast.Attribute(attr="import_module"), args=[ast.Constant(value=str(name)), *_]
            ):
                yield name
            case _:
                pass
        waiting += ast.iter_child_nodes(node)


def owner_of(module: str) -> str | None:
    """The distribution of a module; None for the standard library and the project's own."""
    if module.partition(".")[0] in {*sys.stdlib_module_names, "services", "workflows"}:
        return None
    while module not in owners():
        module, dot, _ = module.rpartition(".")
        if not dot:
            return f"unknown: {module}"
    return owners()[module]


def used_in(folder: Path) -> dict[str, set[str]]:
    """The distributions whose modules a folder imports, with the files that do."""
    found: dict[str, set[str]] = {}
    for path in folder.rglob("*.py"):
        for module in imported(path.read_text()):
            if owner := owner_of(module):
                found.setdefault(owner, set()).add(str(path.relative_to(ROOT)))
    return found


def extras_of(app: App) -> list[str]:
    return [app.id] if app.id in EXTRAS else []


@requirement("gates:extras")
@pytest.mark.parametrize("app", PYTHON_APPS, ids=lambda app: app.id)
def test_an_app_imports_only_core_packages_and_those_of_its_extra(app: App) -> None:
    foreign = used_in(ROOT / app.folder).keys() - allowed(*extras_of(app))
    assert {name: used_in(ROOT / app.folder)[name] for name in foreign} == {}


@requirement("gates:extras")
def test_libraries_import_only_core_packages() -> None:
    folders = [path for path in (ROOT / "services").iterdir() if path.is_dir()]
    libraries = [each for each in folders if f"services/{each.name}" not in FOLDERS]
    core = allowed()
    found = {name: files for each in libraries for name, files in used_in(each).items()}
    assert {name: files for name, files in found.items() if name not in core | DEVELOPMENT} == {}


@requirement("gates:extras")
def test_every_extra_belongs_to_an_app_that_uses_each_of_its_packages() -> None:
    of_apps = set(EXTRAS) - {"all", LOCAL}
    assert of_apps <= set(FOLDERS.values())
    for app in PYTHON_APPS:
        declared = {canonicalize_name(Requirement(each).name) for each in EXTRAS.get(app.id, ())}
        assert declared <= used_in(ROOT / app.folder).keys(), app.id


@requirement("gates:extras")
def test_the_default_install_has_every_extra() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    assert "yocaso[all]" in groups["dev"]
    [everything] = [Requirement(each) for each in EXTRAS["all"]]
    assert everything.extras == set(EXTRAS) - {"all"}


def load(app: App, *present: str) -> "subprocess.CompletedProcess[str]":
    """Import every module of an app in a process that has only the core and these extras."""
    absent = allowed(*EXTRAS) - allowed(*present)
    refused = {module for module, owner in owners().items() if owner in absent}
    return subprocess.run(
        [sys.executable, "-"],
        input=f"REFUSED = {refused!r}\nPACKAGE = {app.module!r}\n{IMPORT}",
        cwd=ROOT,
        env={**os.environ, "APP_API_TOKEN": "token-of-the-tests"},
        capture_output=True,
        text=True,
        check=False,
        timeout=25,
    )


@requirement("gates:extras")
@pytest.mark.parametrize("app", PYTHON_APPS, ids=lambda app: app.id)
def test_every_module_of_an_app_loads_with_the_core_and_its_own_extra(app: App) -> None:
    done = load(app, *extras_of(app))
    assert done.returncode == 0, done.stderr


def test_an_app_does_not_load_without_its_extra() -> None:
    done = load(next(app for app in PYTHON_APPS if app.id == "auth"), "llm")
    assert "openfga_sdk is in an extra that is not installed" in done.stderr


def test_a_module_of_a_namespace_belongs_to_its_own_distribution() -> None:
    assert owner_of("google.protobuf.any_pb2.Any") == "protobuf"
    assert owner_of("google.auth.exceptions") == "google-auth"
    assert owner_of("os.path") is None
    assert owner_of("services.kit.errors") is None


def test_imports_are_found_in_functions_and_by_name_but_not_those_of_the_type_checker() -> None:
    source = """
if TYPE_CHECKING:
    import typing_only
def f():
    from one import two
    importlib.import_module("three.four")
"""
    assert sorted(imported(source)) == ["one.two", "three.four"]
