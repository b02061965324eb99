"""The record of a soak: attempts, violations, and times of faults."""

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, TextIO

from tests.support.retries import RECOVERY_SECONDS

SHOWN: Final = 3
"""Number of violations of a kind that are printed; the file has all."""


class Phase(StrEnum):
    """The parts of a soak, in order."""

    QUIET = "quiet"
    FAULTS = "faults"
    HEALED = "healed"


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of a process, until it was ready again; times are monotonic seconds."""

    target: str
    kind: str
    began: float
    ended: float


class Abandoned(Exception):
    """A user's action failed; the violation is recorded."""


@dataclass
class Ledger:
    """Counts attempts by phase and violations by kind, and records faults."""

    folder: Path
    phase: Phase = Phase.QUIET
    faults: list[Fault] = field(default_factory=list[Fault])
    problems: Counter[str] = field(default_factory=Counter[str])
    attempts: Counter[tuple[Phase, bool]] = field(default_factory=Counter[tuple[Phase, bool]])
    refusals: Counter[str] = field(default_factory=Counter[str])
    done: Counter[str] = field(default_factory=Counter[str])
    began: float = field(default_factory=time.monotonic)
    healed_at: float | None = None
    _files: dict[str, TextIO] = field(default_factory=dict[str, TextIO])

    def attempt(self, ok: bool, why: str = "", *, count: int = 1) -> None:
        """Count attempts at the edge."""
        self.attempts[self.phase, ok] += count
        if not ok:
            self.refusals[why] += count

    def problem(self, kind: str, detail: str) -> None:
        self.problems[kind] += 1
        row = {"at": round(time.monotonic() - self.began, 1), "kind": kind, "detail": detail}
        self.write("problems", row)
        if self.problems[kind] <= SHOWN:
            say(f"PROBLEM {kind}: {detail[:600]}")

    def fault(self, fault: Fault) -> None:
        """Record a fault that is over."""
        self.faults.append(fault)
        away = round(fault.ended - fault.began, 1)
        at = round(fault.began - self.began, 1)
        self.write("faults", {"at": at, "target": fault.target, "kind": fault.kind, "away": away})

    def heal(self) -> None:
        """Record that the last fault is over and every process is ready."""
        self.phase, self.healed_at = Phase.HEALED, time.monotonic()

    def is_overdue(self, began: float) -> bool:
        """Whether an action begun then should have ended."""
        return (
            self.healed_at is not None
            and time.monotonic() > max(began, self.healed_at) + RECOVERY_SECONDS
        )

    def faults_within(self, targets: frozenset[str], began: float, ended: float) -> int:
        """Number of faults of these processes within a period."""
        return sum(
            each.target in targets and each.began <= ended and each.ended >= began
            for each in self.faults
        )

    def ok_rate(self, phase: Phase) -> float:
        """The share of a phase's attempts that were answered."""
        ok, refused = self.attempts[phase, True], self.attempts[phase, False]
        return ok / (ok + refused) if ok + refused else 0.0

    def write(self, name: str, row: dict[str, Any]) -> None:
        """Append a JSON line to a file of the folder."""
        if name not in self._files:
            path = self.folder / f"{name}.jsonl"
            self._files[name] = path.open("a", encoding="utf-8", buffering=1)
        self._files[name].write(json.dumps(row, default=str) + "\n")

    def close(self) -> None:
        for file in self._files.values():
            file.close()


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)
