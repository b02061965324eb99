"""Committed seconds per stage; a stage that takes longer fails the run.

A budget is twice what the stage took on the machine of `reference`: the margin is for noise. On a slower or busier
machine all budgets grow by the factor by which it is slower at a fixed piece of work; they never shrink.
"""

import math
import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

FILE: Final = Path(__file__).parents[2] / "budgets.toml"
MARGIN: Final = 2.0
ROUNDED_TO: Final = 5
MINIMUM: Final = 30
"""Below it a cold disk decides."""
WORK: Final = """
import time
began, number = time.perf_counter(), 1
for step in range(3_000_000):
    number = (number * 31 + step) % 1_000_003
print(time.perf_counter() - began)
"""
HEADER: Final = """\
# Seconds that each stage of `poe test` may take: twice what it took, rounded up to 5, and at least 30. A stage over its
# budget fails the run. Written by `uv run poe test --set-budgets`, which runs everything; commit a larger number only with a reason.
# Stages that build what is not in a cache have none.

# Seconds of a fixed piece of work, on every core at once; where it takes longer, all budgets grow in proportion.
"""


@dataclass(frozen=True, slots=True)
class Budgets:
    """Seconds by stage, and the seconds of the fixed work where they were measured."""

    reference: float
    seconds: Mapping[str, int]

    @classmethod
    def read(cls, file: Path = FILE) -> Self:
        written = tomllib.loads(file.read_text())
        return cls(written["reference"], written["stages"])

    def factor(self, work: float) -> float:
        """How much slower than the machine of the reference one is whose fixed work takes `work` seconds; at least 1."""
        return max(1.0, work / self.reference)

    def limits(self, work: float) -> dict[str, int]:
        """Budgets by stage on such a machine."""
        factor = self.factor(work)
        return {stage: math.ceil(seconds * factor) for stage, seconds in self.seconds.items()}


def write_budgets(took: Mapping[str, float], work: float, file: Path = FILE) -> None:
    """Write the budgets that follow from the seconds that stages took."""
    budgets = {name: _rounded(seconds * MARGIN) for name, seconds in sorted(took.items())}
    lines = [f"{_key(name)} = {budget}" for name, budget in budgets.items()]
    text = "\n".join([f"reference = {work:.2f}", "", "[stages]", *lines])
    file.write_text(f"{HEADER}{text}\n")


def _rounded(seconds: float) -> int:
    return max(MINIMUM, math.ceil(seconds / ROUNDED_TO) * ROUNDED_TO)


def _key(name: str) -> str:
    return name if name.isidentifier() else f'"{name}"'


def fixed_work() -> float:
    """Seconds of a fixed piece of work that runs on every core at once: those of the slowest."""
    command = (sys.executable, "-I", "-c", WORK)
    workers = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        for _ in os.sched_getaffinity(0)
    ]
    return max(float(worker.communicate()[0]) for worker in workers)
