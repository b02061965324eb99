"""Operations of clients with their times, as the checkers read them."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO


@dataclass(slots=True)
class Operation:
    """One operation on an object; monotonic ns. Without `end` its outcome is unknown (a timeout, a lost connection)."""

    client: str
    name: str
    key: str
    value: str
    begin: int
    end: int | None = None

    def ok(self) -> None:
        """Mark as acknowledged now."""
        self.end = time.monotonic_ns()


class History:
    """Operations in the order they began; with a path, each is also a JSON line once its block ends."""

    def __init__(self, path: Path | None = None) -> None:
        self._operations: list[Operation] = []
        self._file: TextIO | None = path.open("a", encoding="utf-8") if path else None

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
    async def operation(
        self, client: str, name: str, key: str, value: str
    ) -> AsyncIterator[Operation]:
        """Record an operation; the block calls `ok` when it is acknowledged."""
        operation = Operation(client, name, key, value, time.monotonic_ns())
        self._operations.append(operation)
        try:
            yield operation
        finally:
            if self._file:
                self._file.write(json.dumps(asdict(operation)) + "\n")
                self._file.flush()

    def operations(self, name: str | None = None) -> list[Operation]:
        """The operations, or those of one name."""
        return [each for each in self._operations if name in (None, each.name)]
