"""Files that follow from the contracts: written, or only compared."""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
HEADER: Final = "# Written by `poe emit` from the contracts.\n"


def write(wanted: Mapping[Path, str]) -> None:
    """Write the files."""
    for path, text in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def different(wanted: Mapping[Path, str], among: Iterable[Path] = ()) -> list[Path]:
    """The files that are not as wanted, and those `among` that are not wanted at all."""
    return [
        path
        for path in sorted({*wanted, *among})
        if not path.exists() or path.read_text() != wanted.get(path)
    ]


def report(paths: Iterable[Path]) -> int:
    """Name the files that differ, on stderr; the exit code, 1 when one does."""
    found = list(paths)
    for path in found:
        sys.stderr.write(f"{path.relative_to(ROOT)} differs from the contracts: run `poe emit`\n")
    return 1 if found else 0
