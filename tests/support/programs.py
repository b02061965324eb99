"""Builds every program that the tests start, so that no test waits for a build: `python -m tests.support.programs`."""

from pathlib import Path
from typing import Final

from services.cli.stack.binaries import Binaries, default_cache

ROOT: Final = Path(__file__).parents[2]


def say(line: str) -> None:
    """Print progress, unbuffered."""
    print(line, flush=True)


PROGRAMS: Final = Binaries(default_cache(), ROOT / "services" / "edge", say)


def main() -> None:
    """Build the missing programs one after another."""
    for program in (
        PROGRAMS.daprd,
        PROGRAMS.placement,
        PROGRAMS.scheduler,
        PROGRAMS.sentry,
        PROGRAMS.openfga,
        PROGRAMS.edge,
        PROGRAMS.helm,
    ):
        say(f"{program.__name__}: {program()}")


if __name__ == "__main__":
    main()
