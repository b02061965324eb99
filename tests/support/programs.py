"""Builds what the tests start, programs and the template of databases, so that no test waits for a build: `python -m tests.support.programs`."""

from pathlib import Path
from typing import Final

from services.cli.stack import postgres
from services.cli.stack.binaries import Binaries, default_cache
from tests.support.browser import chromium
from tests.support.foreign import PROGRAMS as FOREIGN

ROOT: Final = Path(__file__).parents[2]


def say(line: str) -> None:
    """Print progress, unbuffered."""
    print(line, flush=True)


PROGRAMS: Final = Binaries(default_cache(), ROOT / "services" / "edge", say)


def main() -> None:
    """Build the missing programs."""
    PROGRAMS.builds(PROGRAMS.paths()).wait()
    for name, path in PROGRAMS.paths().items():
        say(f"{name}: {path}")
    for program in FOREIGN:
        say(f"foreign app in {program.language}: {program.built()}")
    say(f"chromium: {chromium()}")
    say(f"template of databases: {postgres.template()}")


if __name__ == "__main__":
    main()
