"""The journal of the model server: one entry per request, times by the monotonic clock."""

import asyncio
import hashlib
import json
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Outcome = Literal["open", "completed", "error", "cut", "client_closed"]


@dataclass(slots=True)
class Entry:
    """One request. `client_closed_at` is set only if the client disconnected before the end of the answer."""

    number: int
    model: str
    stream: bool
    prompt: str
    attempt: int
    messages: list[dict[str, Any]]
    traceparent: str | None
    authorized: bool
    max_tokens: int | None = None
    opened_at: float = field(default_factory=time.monotonic)
    first_byte_at: float | None = None
    last_byte_at: float | None = None
    client_closed_at: float | None = None
    tokens_sent: int = 0
    waiting_at: str | None = None
    outcome: Outcome = "open"

    def end(self, outcome: Outcome) -> None:
        """Set the outcome, once."""
        if self.outcome == "open":
            self.outcome = outcome
            if outcome == "client_closed":
                self.client_closed_at = time.monotonic()


class Journal:
    """The latest requests and the number of attempts of each; a file keeps the numbers across a kill."""

    def __init__(self, keep: int = 50_000, path: Path | None = None) -> None:
        self._entries: deque[Entry] = deque(maxlen=keep)
        self._attempts: dict[str, int] = {}
        self._count = 0
        for line in prompts(path) if path else ():
            self._count_attempt(line["key"])
        self._file = path.open("a", encoding="utf-8") if path else None

    def open(self, key: object, *, prompt: str, **seen: Any) -> Entry:
        """Add an entry; requests with an equal key are attempts of one call."""
        digest = hashlib.sha256(repr(key).encode()).hexdigest()
        attempt = self._count_attempt(digest)
        if self._file:
            self._file.write(json.dumps({"key": digest, "prompt": prompt}) + "\n")
            self._file.flush()
        entry = Entry(number=self._count, attempt=attempt, prompt=prompt, **seen)
        self._entries.append(entry)
        return entry

    def close(self) -> None:
        if self._file:
            self._file.close()

    def _count_attempt(self, digest: str) -> int:
        self._count += 1
        attempt = self._attempts[digest] = self._attempts.get(digest, 0) + 1
        return attempt

    @property
    def entries(self) -> list[Entry]:
        return list(self._entries)

    def to_json(self) -> dict[str, Any]:
        """The body of GET /__journal; `now` is the current time of the entries' clock."""
        return {"now": time.monotonic(), "entries": [asdict(entry) for entry in self._entries]}


def prompts(path: Path) -> list[dict[str, str]]:
    """The requests in a journal file, with equal `key` for attempts of one call; drops an incomplete last line."""
    if not path.exists():
        return []
    whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines()]


class Gates:
    """Named gates: each is closed from its first use until its release."""

    def __init__(self) -> None:
        self._gates: dict[str, asyncio.Event] = {}

    def gate(self, name: str) -> asyncio.Event:
        return self._gates.setdefault(name, asyncio.Event())

    def release(self, name: str) -> None:
        """Open a gate for waiting and later streams."""
        self.gate(name).set()
