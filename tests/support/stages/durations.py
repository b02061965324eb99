"""Seconds of each test file in the last run that had it, kept in the checkout's pytest cache."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from tests.support.stages.plan import ROOT
from tests.support.stages.reports import Report

FILE: Final = ROOT / ".pytest_cache" / "seconds-of-files.json"


def read_durations(file: Path = FILE) -> dict[str, float]:
    """Seconds by path of a test file; empty before the first run."""
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return {}


def add_durations(reports: Iterable[Report], file: Path = FILE) -> Mapping[str, float]:
    """Add what reports say; a file of which only some tests ran keeps what is larger."""
    sums: defaultdict[str, float] = defaultdict(float)
    for report in reports:
        for test in report.tests:
            sums[test.file] += test.seconds
    known = read_durations(file)
    merged = known | {name: max(took, known.get(name, 0)) for name, took in sums.items()}
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(merged, indent=1, sort_keys=True))
    return merged
