"""Thousands of stream readers in one process, each a bare socket to keep the client's cost low."""

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from typing_extensions import override

from tests.support.sse import TERMINAL

ENDS: Final = frozenset(name.encode() for name in TERMINAL)
EVENT, ID, DATA = b"event: ", b"id: ", b"data: "


@dataclass
class StreamReaders:
    """All readers, and counts of what happened to them."""

    host: str
    port: int
    counts: Counter[str] = field(default_factory=Counter[str])
    readers: list["Reader"] = field(default_factory=list["Reader"])
    _opening: set["asyncio.Task[None]"] = field(default_factory=set["asyncio.Task[None]"])
    _closed: bool = False

    def add(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> "Reader":
        """Open a stream, which is opened again after `reconnect`."""
        reader = Reader(self, path, headers, json.dumps(body).encode())
        self.readers.append(reader)
        self.open(reader, 0)
        return reader

    def open(self, reader: "Reader", delay: float) -> None:
        """Connect a reader after a delay in seconds."""
        if not self._closed:
            task = asyncio.create_task(self._connect(reader, delay))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _connect(self, reader: "Reader", delay: float) -> None:
        await asyncio.sleep(delay)
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: reader, self.host, self.port)
        except OSError:
            self.counts["refused: connection"] += 1
            self.open(reader, 1)

    @property
    def open_count(self) -> int:
        return sum(reader.is_open for reader in self.readers)

    def close(self) -> None:
        self._closed = True
        for task in list(self._opening):
            task.cancel()
        for reader in self.readers:
            reader.leave()


class Reader(asyncio.Protocol):
    """One stream over HTTP/1.0, whose body has no chunked framing."""

    __slots__ = (
        "_body",
        "_event",
        "_head",
        "_headers",
        "_path",
        "_readers",
        "_resumes",
        "_tail",
        "_transport",
        "first",
        "is_open",
        "is_over",
        "restarts",
        "seq",
    )  # fmt: skip

    def __init__(
        self, readers: StreamReaders, path: str, headers: dict[str, str], body: bytes
    ) -> None:
        self._readers, self._path, self._body = readers, path, body
        lines = {**headers, "content-type": "application/json", "accept": "text/event-stream"}
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self._transport: asyncio.Transport | None = None
        self.first: Any = None
        self.is_open = self.is_over = False
        self.seq = 0
        self.restarts = 0
        self._begin()

    def _begin(self) -> None:
        self._tail, self._event, self._head, self._resumes = b"", b"", True, False

    def leave(self) -> None:
        """Close without reconnecting."""
        self.is_over = True
        if self._transport is not None:
            self._transport.abort()

    @override
    def connection_made(self, transport: Any) -> None:
        self._begin()
        self._transport = transport
        last = f"last-event-id: {self.seq}\r\n" if self.seq else ""
        head = f"POST {self._path} HTTP/1.0\r\n{self._headers}{last}"
        transport.write(f"{head}content-length: {len(self._body)}\r\n\r\n".encode() + self._body)

    @override
    def data_received(self, data: bytes) -> None:
        *lines, self._tail = (self._tail + data).split(b"\n")
        for line in lines:
            self._take(line.rstrip(b"\r"))

    def _take(self, line: bytes) -> None:
        if self._head:
            self._take_head(line)
        elif line.startswith(EVENT):
            self._event = line.removeprefix(EVENT)
            self._take_event(self._event)
        elif line.startswith(ID):
            self.seq = int(line.removeprefix(ID))
        elif line.startswith(DATA) and self.first is None:
            self.first = json.loads(line.removeprefix(DATA))

    def _take_head(self, line: bytes) -> None:
        if line.startswith(b"HTTP/"):
            status = line.split()[1]
            self.is_open = status == b"200"
            if not self.is_open:
                self._readers.counts[f"refused: {status.decode()}"] += 1
        self._head = bool(line) and self.is_open

    def _take_event(self, event: bytes) -> None:
        self._readers.counts["events"] += 1
        if event == b"reconnect":
            self._resumes = True
            self._readers.counts["reconnects"] += 1
        elif event == b"attempt.restarted":
            self.restarts += 1
        elif event in ENDS:
            self.is_over = True
            self._readers.counts["ended"] += 1

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        was_open, self.is_open, self._transport = self.is_open, False, None
        if self.is_over:
            return
        if was_open and not self._resumes:
            self._readers.counts["lost"] += 1
        self._readers.open(self, 0 if self._resumes else 1)
