"""Folds the events of a turn into the text to display; does no I/O."""

from dataclasses import dataclass, field
from typing import Any, Final

TERMINAL: Final = frozenset({"run.completed", "run.failed", "run.cancelled"})


@dataclass(frozen=True, slots=True)
class ScreenUpdate:
    """Text to display after an event."""

    text: str = ""
    restarted: bool = False
    """`text` replaces all text displayed before."""


@dataclass
class Transcript:
    """State of one turn; a repeated event has no effect, so a stream can resume at any `seq`."""

    last_seq: int = 0
    turn_id: str = ""
    outcome: str = ""
    error: str = ""
    _parts: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])

    @property
    def text(self) -> str:
        """The answer up to the last event."""
        return "".join(part for _, part in self._parts)

    @property
    def is_over(self) -> bool:
        """Whether the terminal event has arrived."""
        return bool(self.outcome)

    def apply(self, event: dict[str, Any]) -> ScreenUpdate:
        seq = int(event["seq"])
        if seq <= self.last_seq:
            return ScreenUpdate()
        self.last_seq = seq
        kind, data = str(event["type"]), event.get("data", {})
        if kind == "text.delta":
            self._parts.append((seq, str(data["text"])))
            return ScreenUpdate(self._parts[-1][1])
        if kind == "attempt.restarted":
            return self._restart(int(data["fromSeq"]))
        if kind == "run.started":
            self.turn_id = str(data.get("turnId", ""))
        if kind in TERMINAL:
            self.outcome = kind
            self.error = _error_line(data.get("error"))
        return ScreenUpdate()

    def _restart(self, from_seq: int) -> ScreenUpdate:
        kept = [(seq, part) for seq, part in self._parts if seq < from_seq]
        changed = len(kept) != len(self._parts)
        self._parts = kept
        return ScreenUpdate(self.text, restarted=True) if changed else ScreenUpdate()


def _error_line(error: dict[str, Any] | None) -> str:
    return f"{error.get('code', 'INTERNAL')}: {error.get('message', '')}" if error else ""
