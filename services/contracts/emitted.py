"""Files that are written from the contracts, and held to them."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path


def emit(wanted: Mapping[Path, str], arguments: Sequence[str], among: Iterable[Path] = ()) -> int:
    """Write the files, or with `--check` only look; name on stderr what differs, or is `among` them without being wanted.

    Returns the exit code: 1 when something does.
    """
    if "--check" not in arguments:
        for path, text in wanted.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    different = [
        path
        for path in sorted({*wanted, *among})
        if not path.exists() or path.read_text() != wanted.get(path)
    ]
    for path in different:
        name = "/".join(path.parts[-2:])
        sys.stderr.write(f"{name} differs from the contracts: run `poe emit`\n")
    return 1 if different else 0
