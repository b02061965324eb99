"""Runs tests on the newest Python that the project supports: `python -m tests.support.newer_python PATH…`.

Arguments are pytest's. The environment is one of its own in the cache folder, with the locked packages.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from services.cli.stack.binaries import default_cache

ROOT: Final = Path(__file__).parents[2]
NEWER: Final = "3.13"


def find_interpreter(version: str) -> Path | None:
    """The interpreter that YOCASO_PYTHON names, else one of the version on PATH, of uv or of pyenv."""
    return next((path for path in _candidates(version) if _runs(path, version)), None)


def _candidates(version: str) -> Iterator[Path]:
    if named := os.environ.get("YOCASO_PYTHON"):
        yield Path(named)
    if on_path := shutil.which(f"python{version}"):
        yield Path(on_path)
    data = Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local" / "share"))
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from sorted(data.glob(f"uv/python/cpython-{version}.*/bin/python{version}"))
    yield from sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}"))


def _runs(path: Path, version: str) -> bool:
    """Whether it runs and has the version; a shim of pyenv exists for versions that are not installed."""
    try:
        ran = subprocess.run((path, "-VV"), capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return False
    return ran.stdout.startswith(f"Python {version}.")


INTERPRETER: Final = find_interpreter(NEWER)
"""None if this machine has none."""


def environment(interpreter: Path) -> Path:
    """The Python of an environment with the locked packages, which is made if it is missing."""
    checkout = hashlib.sha256(str(ROOT).encode()).hexdigest()[:6]
    folder = default_cache() / f"python-{NEWER}-{checkout}"
    subprocess.run(
        (os.environ.get("UV", "uv"), "sync", "--frozen", "--quiet", "--python", interpreter),
        cwd=ROOT,
        env={**os.environ, "UV_PROJECT_ENVIRONMENT": str(folder)},
        check=True,
    )
    return folder / "bin" / "python"


def main(arguments: Sequence[str]) -> None:
    """Replace this process by pytest on the newer Python."""
    if INTERPRETER is None:
        raise SystemExit(f"no Python {NEWER} was found; YOCASO_PYTHON may name one")
    python = environment(INTERPRETER)
    os.chdir(ROOT)
    os.execv(python, (str(python), "-m", "pytest", "-p", "no:cacheprovider", *arguments))


if __name__ == "__main__":
    main(sys.argv[1:])
