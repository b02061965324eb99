"""`python -m services.codegen` writes every file that follows from the contracts; with `--check` it only compares."""

import sys
from pathlib import Path

from services.codegen import chart, dapr, edge, imports, openapi, overview
from services.codegen.files import different, report, write


def main(arguments: list[str]) -> int:
    """The exit code: 1 where `--check` finds a file that differs."""
    wanted: dict[Path, str] = {}
    for part in (openapi, edge, dapr, chart, imports, overview):
        wanted |= part.files()
    if "--check" not in arguments:
        write(wanted)
    return report(different(wanted, [*openapi.owned(), *dapr.owned()]))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
