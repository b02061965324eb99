"""Incremental decoder of server-sent events (WHATWG HTML, 9.2.6)."""

from collections.abc import Iterator
from typing import Final

MAX_EVENT_BYTES: Final = 1024 * 1024


class OversizeEvent(ValueError):
    """An event is longer than MAX_EVENT_BYTES."""


class SseDecoder:
    """Returns the `data` of each event, for any split of the bytes into chunks; comments and other fields are dropped.

    Memory is bounded by MAX_EVENT_BYTES.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        self._started = False
        self._skip_newline = False

    def feed(self, chunk: bytes) -> Iterator[str]:
        """The events that this chunk completes.

        Raises:
            OversizeEvent: an event is too long; discard the stream.
        """
        self._buffer += chunk
        while (line := self._next_line()) is not None:
            if line:
                self._take(line)
            elif self._data:
                data, self._data, self._size = b"\n".join(self._data), [], 0
                yield data.decode("utf-8", errors="replace")
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
        if name != b"data":
            return
        value = value.removeprefix(b" ")
        self._size += len(value)
        self._data.append(value)
