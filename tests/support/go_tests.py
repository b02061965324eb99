"""Runs Go tests, with the race detector where it works: `python -m tests.support.go_tests FOLDER…`."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

ENV: Final = ("go", "env", "CGO_ENABLED", "CC")
WITHOUT: Final = "Without the race detector: it needs cgo, and so a C compiler such as gcc."


def race_flags() -> tuple[str, ...]:
    """The flags that build Go code with the race detector; none where no C compiler is found."""
    if shutil.which("go") is None:
        return ()
    answer = subprocess.run(ENV, capture_output=True, text=True, check=True)
    enabled, _, compiler = answer.stdout.strip().partition("\n")
    is_there = bool(compiler) and shutil.which(compiler.split()[0]) is not None
    return ("-race",) if enabled == "1" and is_there else ()


def main(folders: Sequence[str]) -> int:
    """Run the tests of each folder's module; the exit status is 1 if any fails."""
    flags = race_flags()
    if not flags:
        print(WITHOUT, flush=True)
    codes = [_run("go", "test", "-C", folder, *flags, "./...") for folder in folders]
    return 1 if any(codes) else 0


def _run(*command: str) -> int:
    print(" ".join(command), flush=True)
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
