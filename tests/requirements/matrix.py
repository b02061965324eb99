"""The faults and attacks in the tables of `README.md`: what shows each, and what brings the rest."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

DOCUMENT: Final = Path(__file__).with_name("README.md")
_ROW: Final = re.compile(r"^\| ([A-Z][A-Z0-9]*\d) \| (.+?) \| (.*?) ?\| (.*?) ?\|$", re.MULTILINE)
_ID: Final = re.compile(r"`([^`]+)`")


@dataclass(frozen=True, slots=True)
class Row:
    """A fault or attack: the ids that show it, and the issue or app that brings what they do not show."""

    name: str
    fault: str
    shown_by: tuple[str, ...]
    brought_by: str

    @property
    def is_deferred(self) -> bool:
        """Whether no test can show any of it yet."""
        return not self.shown_by


ROWS: Final = tuple(
    Row(name, fault, tuple(_ID.findall(shown)), brought)
    for name, fault, shown, brought in _ROW.findall(DOCUMENT.read_text())
)
DEFERRED: Final = tuple(row for row in ROWS if row.is_deferred)


def summary() -> str:
    """How many rows are deferred, and to what."""
    counts = Counter(row.brought_by for row in DEFERRED)
    parts = ", ".join(f"{number} to {what}" for what, number in sorted(counts.items()))
    return f"{len(DEFERRED)} of {len(ROWS)} faults and attacks are deferred: {parts}"
