"""What a soak has met so far: attempts, problems, and when faults were under way."""

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, TextIO

HEAL_SECONDS: Final = 60.0
"""The bound of I11: so long after the last fault every call is answered and every turn has ended."""
SHOWN: Final = 3
"""How many problems of a kind are printed; all are in the file."""


class Phase(StrEnum):
    """The parts of a soak, in order."""

    QUIET = "quiet"
    FAULTS = "faults"
    HEALED = "healed"


@dataclass(frozen=True, slots=True)
class Fault:
    """What was done to a process, and from when until when it was away; times are monotonic seconds."""

    target: str
    kind: str
    began: float
    ended: float


class GaveUp(Exception):
    """Something did not come within the bound; it is noted."""


@dataclass
class Ledger:
    """Counts attempts by phase, collects problems by kind, and knows the faults."""

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
        """Note how attempts at the edge ended."""
        self.attempts[self.phase, ok] += count
        if not ok:
            self.refusals[why] += count

    def problem(self, kind: str, detail: str) -> None:
        """Note a violation."""
        self.problems[kind] += 1
        row = {"at": round(time.monotonic() - self.began, 1), "kind": kind, "detail": detail}
        self.write("problems", row)
        if self.problems[kind] <= SHOWN:
            say(f"PROBLEM {kind}: {detail[:600]}")

    def fault(self, fault: Fault) -> None:
        """Note a fault that is over."""
        self.faults.append(fault)
        away = round(fault.ended - fault.began, 1)
        at = round(fault.began - self.began, 1)
        self.write("faults", {"at": at, "target": fault.target, "kind": fault.kind, "away": away})

    def heal(self) -> None:
        """The last fault is over, and every process answers."""
        self.phase, self.healed_at = Phase.HEALED, time.monotonic()

    def is_overdue(self, began: float) -> bool:
        """Whether something begun then should have ended by now."""
        return (
            self.healed_at is not None
            and time.monotonic() > max(began, self.healed_at) + HEAL_SECONDS
        )

    def faults_within(self, targets: frozenset[str], began: float, ended: float) -> int:
        """How many faults of some processes fell into a time."""
        return sum(
            each.target in targets and each.began <= ended and each.ended >= began
            for each in self.faults
        )

    def ok_rate(self, phase: Phase) -> float:
        """The part of a phase's attempts that were answered."""
        ok, refused = self.attempts[phase, True], self.attempts[phase, False]
        return ok / (ok + refused) if ok + refused else 0.0

    def write(self, name: str, row: dict[str, Any]) -> None:
        """Add a line to a file of the folder."""
        if name not in self._files:
            path = self.folder / f"{name}.jsonl"
            self._files[name] = path.open("a", encoding="utf-8", buffering=1)
        self._files[name].write(json.dumps(row, default=str) + "\n")

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)
