"""What clients did and saw, one JSON line per step; checkers read it afterwards."""

import json
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TextIO

Kind = Literal["invoke", "ok", "fail", "info"]


@dataclass(frozen=True, slots=True)
class Step:
    """One step of one client. `info` means: it may have happened, nobody knows (a timeout, a cut)."""

    process: str
    f: str
    key: str
    value: Any
    type: Kind
    t_mono_ns: int
    op: int


@dataclass(frozen=True, slots=True)
class Operation:
    """An invocation and how it ended; `end` is None when nobody knows."""

    process: str
    f: str
    key: str
    value: Any
    outcome: Literal["ok", "fail", "info"]
    begin: int
    end: int | None
    result: Any = None


class Attempt:
    """An invocation under way; without a word about its end its outcome is unknown."""

    def __init__(self) -> None:
        self.outcome: Literal["ok", "fail", "info"] = "info"
        self.result: Any = None

    def ok(self, result: Any = None) -> None:
        """It happened."""
        self.outcome, self.result = "ok", result

    def fail(self, result: Any = None) -> None:
        """It certainly did not happen."""
        self.outcome, self.result = "fail", result


class History:
    """Records steps in memory, and in a file when a path is given."""

    def __init__(self, path: Path | None = None) -> None:
        self.steps: list[Step] = []
        self._file: TextIO | None = path.open("a", encoding="utf-8") if path else None
        self._ops = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file:
            self._file.close()

    @asynccontextmanager
    async def operation(self, process: str, f: str, key: str, value: Any) -> AsyncIterator[Attempt]:
        """Record an invocation; the block says `ok` or `fail`, else the end is `info`."""
        self._ops += 1
        op, attempt = self._ops, Attempt()
        self._add(Step(process, f, key, value, "invoke", time.monotonic_ns(), op))
        try:
            yield attempt
        finally:
            self._add(
                Step(process, f, key, attempt.result, attempt.outcome, time.monotonic_ns(), op)
            )

    def _add(self, step: Step) -> None:
        self.steps.append(step)
        if self._file:
            self._file.write(json.dumps(asdict(step)) + "\n")
            self._file.flush()

    def operations(self, f: str | None = None, key: str | None = None) -> list[Operation]:
        """The operations, by time of invocation."""
        found = pair(self.steps)
        return [each for each in found if f in (None, each.f) and key in (None, each.key)]

    def ok_rate(self, since_ns: int = 0, until_ns: int | None = None) -> float:
        """The part of the operations begun in a window that ended well; a run below its floor shows nothing."""
        begun = [
            each
            for each in self.operations()
            if each.begin >= since_ns and (until_ns is None or each.begin <= until_ns)
        ]
        return sum(each.outcome == "ok" for each in begun) / len(begun) if begun else 0.0


def load(path: Path) -> list[Step]:
    """The steps of a history file."""
    return [
        Step(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines() if line
    ]


def pair(steps: Iterable[Step]) -> list[Operation]:
    """Invocations with their ends; one that never ended is `info`."""
    begun: dict[int, Step] = {}
    ended: dict[int, Step] = {}
    for step in steps:
        (begun if step.type == "invoke" else ended)[step.op] = step
    return [_operation(each, ended.get(op)) for op, each in begun.items()]


def _operation(begin: Step, end: Step | None) -> Operation:
    known = end is not None and end.type in ("ok", "fail")
    outcome: Any = end.type if end is not None else "info"
    return Operation(
        begin.process,
        begin.f,
        begin.key,
        begin.value,
        outcome,
        begin.t_mono_ns,
        end.t_mono_ns if end is not None and known else None,
        end.value if end is not None else None,
    )
