"""The answer as it grows: events in, text to show out. No input or output here."""

from dataclasses import dataclass, field
from typing import Any, Final

TERMINAL: Final = frozenset({"run.completed", "run.failed", "run.cancelled"})


@dataclass(frozen=True, slots=True)
class Shown:
    """What one event changes on the screen."""

    text: str = ""
    restarted: bool = False
    """What was shown before is withdrawn; `text` is all that stays."""


@dataclass
class Transcript:
    """Folds the events of one turn. An event seen before changes nothing, so a stream may be resumed anywhere."""

    last_seq: int = 0
    turn_id: str = ""
    outcome: str = ""
    error: str = ""
    _parts: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(part for _, part in self._parts)

    @property
    def is_over(self) -> bool:
        """Whether the terminal event has been seen."""
        return bool(self.outcome)

    def take(self, event: dict[str, Any]) -> Shown:
        """Fold one event, and say what to show."""
        seq = int(event["seq"])
        if seq <= self.last_seq:
            return Shown()
        self.last_seq = seq
        kind, data = str(event["type"]), event.get("data", {})
        if kind == "text.delta":
            self._parts.append((seq, str(data["text"])))
            return Shown(self._parts[-1][1])
        if kind == "attempt.restarted":
            return self._restart(int(data["fromSeq"]))
        if kind == "run.started":
            self.turn_id = str(data.get("turnId", ""))
        if kind in TERMINAL:
            self.outcome = kind
            self.error = _error_line(data.get("error"))
        return Shown()

    def _restart(self, from_seq: int) -> Shown:
        kept = [(seq, part) for seq, part in self._parts if seq < from_seq]
        changed = len(kept) != len(self._parts)
        self._parts = kept
        return Shown(self.text, restarted=True) if changed else Shown()


def _error_line(error: dict[str, Any] | None) -> str:
    return f"{error.get('code', 'INTERNAL')}: {error.get('message', '')}" if error else ""
