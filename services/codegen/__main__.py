"""`python -m services.codegen` writes every generated file; with `--check` it only compares."""

import sys
from pathlib import Path

from services.codegen import chart, dapr, edge, imports, openapi, overview
from services.codegen.files import find_differences, report, write


def main(arguments: list[str]) -> int:
    """Exit code: 1 if a file differs."""
    wanted: dict[Path, str] = {}
    for part in (openapi, edge, dapr, chart, imports, overview):
        wanted |= part.files()
    if "--check" not in arguments:
        write(wanted)
    return report(find_differences(wanted, [*openapi.existing_files(), *dapr.existing_files()]))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
