"""Fuzzes every target of the edge's Go tests for a while: `python -m tests.support.fuzz [SECONDS] [TARGET…]`.

An input that fails is written to the target's corpus in `services/edge/testdata/fuzz`, where every `go test` runs it.
"""

import subprocess
import sys
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parents[2] / "services" / "edge"
SECONDS: Final = 20


def targets() -> list[str]:
    """The fuzz targets of the Go tests."""
    command = ("go", "test", "-C", str(FOLDER), "-list", "^Fuzz", ".")
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    return [line for line in listed.stdout.splitlines() if line.startswith("Fuzz")]


def main(arguments: list[str]) -> int:
    """Fuzz the chosen targets, or all; the exit status is 1 if one found a failing input."""
    seconds = int(arguments.pop(0)) if arguments and arguments[0].isdigit() else SECONDS
    failed = [name for name in arguments or targets() if not _passes(name, seconds)]
    print(f"failed: {', '.join(failed)}" if failed else "no failing input")
    return 1 if failed else 0


def _passes(target: str, seconds: int) -> bool:
    print(f"== {target}", flush=True)
    bounds = (f"-fuzztime={seconds}s", "-fuzzminimizetime=5s")
    command = ("go", "test", "-C", str(FOLDER), "-run=^$", f"-fuzz=^{target}$", *bounds, ".")
    return subprocess.run(command, check=False).returncode == 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
