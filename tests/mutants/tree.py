"""A temporary copy of the tree, in which a mutant is applied; the checkout is never changed."""

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.contract.sources import ROOT, project_files
from tests.mutants.table import Mutant


class NotApplicable(Exception):
    """The text of a mutant is not in its file exactly once."""


@dataclass(frozen=True, slots=True)
class Tree:
    """A copy of the files that git tracks or would add."""

    root: Path

    @classmethod
    @contextmanager
    def copied(cls) -> Iterator[Self]:
        """A copy for the duration of the block; readable by all, since Postgres runs as another user."""
        with tempfile.TemporaryDirectory(prefix="yocaso-mutants-") as folder:
            root = Path(folder)
            root.chmod(0o755)
            for path in project_files():
                target = root / path.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target)
            yield cls(root)

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which processes import from the copy alone."""
        ours = {name: value for name, value in os.environ.items() if "COVERAGE" not in name}
        return {**ours, "PYTHONPATH": str(self.root)}

    @contextmanager
    def mutated(self, mutant: Mutant) -> Iterator[None]:
        """Apply a mutant for the duration of the block.

        Raises:
            NotApplicable: its text is missing, or is there more than once.
        """
        path = self.root / mutant.file
        original = path.read_text()
        _replace(path, mutated_text(mutant, original))
        try:
            yield
        finally:
            _replace(path, original)


def _replace(path: Path, text: str) -> None:
    """Write a source and drop its compiled form, which a text of equal length and second would keep."""
    path.write_text(text)
    if path.suffix == ".py":
        Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)


def mutated_text(mutant: Mutant, original: str) -> str:
    """The text of the file with the mutant applied; raises NotApplicable."""
    found = original.count(mutant.old)
    if found != 1:
        raise NotApplicable(f"{mutant.name}: its text is in {mutant.file} {found} times")
    return original.replace(mutant.old, mutant.new)
