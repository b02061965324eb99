"""Incremental decoder of server-sent events (WHATWG HTML, 9.2.6)."""

from collections.abc import Iterator
from typing import Final, NamedTuple

MAX_EVENT_BYTES: Final = 1024 * 1024


class OversizeEvent(ValueError):
    """An event is longer than MAX_EVENT_BYTES."""


class SseEvent(NamedTuple):
    """One event: its type, its data, and the last id that the stream has set, "" if none."""

    type: str
    data: str
    id: str


class SseDecoder:
    """Returns the events, or the `data` of each, for any split of the bytes into chunks; comments are dropped.

    Memory is bounded by MAX_EVENT_BYTES.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        self._type = self._id = b""
        self._started = False
        self._skip_newline = False

    def feed(self, chunk: bytes) -> Iterator[str]:
        """The data of the events that this chunk completes.

        Raises:
            OversizeEvent: an event is too long; discard the stream.
        """
        return (event.data for event in self.events(chunk))

    def events(self, chunk: bytes) -> Iterator[SseEvent]:
        """The events that this chunk completes; raises as `feed` does."""
        self._buffer += chunk
        while (line := self._next_line()) is not None:
            if line:
                self._take(line)
            else:
                kind, self._type = self._type, b""
                if self._data:
                    data, self._data, self._size = b"\n".join(self._data), [], 0
                    yield SseEvent(_text(kind or b"message"), _text(data), _text(self._id))
        if len(self._buffer) + self._size > MAX_EVENT_BYTES:
            raise OversizeEvent

    def _next_line(self) -> bytes | None:
        if self._skip_newline and self._buffer:
            if self._buffer[0] == 0x0A:
                del self._buffer[0]
            self._skip_newline = False
        newline = self._buffer.find(b"\n")
        carriage = self._buffer.find(b"\r", 0, newline if newline >= 0 else len(self._buffer))
        end = carriage if carriage >= 0 else newline
        if end < 0:
            return None
        # A carriage return at the end of a chunk may be the first half of a CRLF.
        self._skip_newline = carriage >= 0
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        if not self._started:
            self._started = True
            line = line.removeprefix(b"\xef\xbb\xbf")
        return line

    def _take(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._size += len(value)
            self._data.append(value)
        elif name == b"event":
            self._type = value
        elif name == b"id" and b"\0" not in value:
            self._id = value


def _text(value: bytes) -> str:
    return value.decode("utf-8", errors="replace")
