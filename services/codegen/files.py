"""Writes generated files, or compares them with those on disk."""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
HEADER: Final = "# Written by `poe emit` from the contracts.\n"


def write(wanted: Mapping[Path, str]) -> None:
    for path, text in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def find_differences(wanted: Mapping[Path, str], among: Iterable[Path] = ()) -> list[Path]:
    """Files whose content differs from `wanted`, and those in `among` that `wanted` lacks."""
    return [
        path
        for path in sorted({*wanted, *among})
        if not path.exists() or path.read_text() != wanted.get(path)
    ]


def report(paths: Iterable[Path]) -> int:
    """Print the files that differ to stderr; the exit code is 1 if there are any."""
    found = list(paths)
    for path in found:
        sys.stderr.write(f"{path.relative_to(ROOT)} differs from the contracts: run `poe emit`\n")
    return 1 if found else 0
