"""The project's own files."""

import subprocess
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
FOLDERS: Final = ("services", "workflows", "tests")


def python_files() -> list[Path]:
    """Every Python file of services, workflows and tests."""
    return _files(".py")


def go_files() -> list[Path]:
    return _files(".go")


def project_files() -> list[Path]:
    """Every file that git tracks or does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return [path for name in listed.stdout.splitlines() if (path := ROOT / name).is_file()]


def _files(suffix: str) -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob(f"*{suffix}"))
