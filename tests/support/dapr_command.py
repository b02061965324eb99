"""The `dapr` command: named by DAPR_CLI, on PATH, or packed beside the checkout."""

import lzma
import os
import shutil
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
BESIDE: Final = ROOT.parent / "shared" / "tools"
PACKED: Final = "dapr-*-linux-amd64.xz"


def find_dapr() -> Path | None:
    """The command, or its archive; None where neither is at hand."""
    if named := os.environ.get("DAPR_CLI"):
        return Path(named)
    if installed := shutil.which("dapr"):
        return Path(installed)
    return max(BESIDE.glob(PACKED), default=None)


def unpacked(found: Path, folder: Path) -> Path:
    """The command; an archive is unpacked into the folder."""
    if found.suffix != ".xz":
        return found
    program = folder / "dapr"
    with lzma.open(found) as packed, program.open("wb") as file:
        shutil.copyfileobj(packed, file)
    program.chmod(0o755)
    return program
