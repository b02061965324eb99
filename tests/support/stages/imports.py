"""Which tests depend on which files, by imports and by what they start or read."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import grimp

PACKAGES: Final = ("services", "workflows", "tests")
_NAME: Final = re.compile(r"\b(?:services|workflows|tests)(?:\.[a-z_0-9]+)+\b")
_RUN_TEMPLATE: Final = "dapr.yaml"
_ONLY_NAMES: Final = ("tests.requirements", "tests.support.port_offsets", "tests.support.stages")
"""Their texts name modules that they do not start."""


@dataclass(frozen=True)
class ImportGraph:
    """Modules of the project; an edge is an import, a name of a module in its text, or a conftest above a test."""

    graph: grimp.ImportGraph
    root: Path

    @classmethod
    def read(cls, root: Path, packages: Iterable[str] = PACKAGES) -> Self:
        """Read every module below the root; takes about a second."""
        first, *others = packages
        graph = grimp.build_graph(first, *others, cache_dir=None)
        self = cls(graph, root)
        self._add_conftests()
        self._add_names()
        return self

    def path(self, module: str) -> Path:
        """The file of a module, relative to the root."""
        file = Path(*module.split("."))
        package = file / "__init__.py"
        return package if (self.root / package).exists() else file.with_suffix(".py")

    def module(self, path: Path) -> str | None:
        """The module of a file, relative to the root; None if it is none."""
        parts = path.with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        return name if path.suffix == ".py" and name in self.graph.modules else None

    def modules_that_read(self, path: Path) -> list[str]:
        """Modules of tests beside or above a file that is no module: its readers, as far as they can be known."""
        if path.suffix == ".py" or path.parts[0] != "tests" or len(path.parts) < 4:
            return []  # files of the platform are read by contract tests, which always run
        folder = ".".join(path.parts[:3]) + "."
        return [module for module in self.graph.modules if module.startswith(folder)]

    def tests_of(self, modules: Iterable[str]) -> Mapping[Path, int]:
        """Test files that depend on any of the modules, each with the number of steps to the nearest."""
        distances: dict[str, int] = {}
        level, steps = [each for each in modules if each in self.graph.modules], 0
        while level:
            distances |= dict.fromkeys(level, steps)
            found = {above for each in level for above in self._importers(each)}
            level, steps = sorted(found - distances.keys()), steps + 1
        return {self.path(each): far for each, far in distances.items() if is_test(each)}

    def _importers(self, module: str) -> set[str]:
        """Modules that import one; a package's own module stands for none of its parts."""
        return self.graph.find_modules_that_directly_import(module)

    def _add_conftests(self) -> None:
        conftests = [each for each in self.graph.modules if each.endswith(".conftest")]
        for conftest in conftests:
            folder = conftest.removesuffix("conftest")
            for module in [each for each in self.graph.modules if each.startswith(folder)]:
                if module != conftest:
                    self.graph.add_import(importer=module, imported=conftest)

    def _add_names(self) -> None:
        """Modules that a test, or a file beside it, names: processes are started by name."""
        tests = [each for each in self.graph.modules if each.startswith("tests.")]
        for module in [each for each in tests if not each.startswith(_ONLY_NAMES)]:
            file = self.root / self.path(module)
            for named in self._named(file) & self.graph.modules:
                if named != module:
                    self.graph.add_import(importer=module, imported=named)

    def _named(self, file: Path) -> set[str]:
        text = file.read_text()
        texts = [text, *(each.read_text() for each in _templates(file, text))]
        return {name for each in texts for name in _NAME.findall(each)}


def is_test(module: str) -> bool:
    """Whether a module has tests."""
    return module.startswith("tests.") and module.rpartition(".")[2].startswith("test_")


def _templates(file: Path, text: str) -> Iterator[Path]:
    """Run templates that a file names, beside it or in a folder below it: their apps are part of its tests."""
    if _RUN_TEMPLATE not in text:
        return
    for template in sorted(file.parent.rglob(_RUN_TEMPLATE)):
        if template.parent == file.parent or f'"{template.parent.name}"' in text:
            yield template
