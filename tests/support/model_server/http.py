"""A minimal HTTP/1.1 server connection with control over chunks, and the exact time of a disconnect."""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, cast

import httptools

LINGER_RESET: Final = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class Request:
    """One request, its body read."""

    method: str = ""
    target: str = ""
    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""

    @property
    def path(self) -> str:
        """The target without the query."""
        return self.target.partition("?")[0]

    def json(self) -> Any:
        return json.loads(self.body)


Handler = Callable[["Connection", Request], Awaitable[None]]


class Connection(asyncio.Protocol):
    """One client connection; requests are answered in order."""

    def __init__(self, handle: Handler, opened: set["Connection"]) -> None:
        self._handle = handle
        self._opened = opened
        self._request = Request()
        self._body: list[bytes] = []
        self._task: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._chunked = False
        self.on_lost: Callable[[], None] | None = None
        self.split_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpRequestParser(self)
        self._opened.add(self)
        self._transport.get_extra_info("socket").setsockopt(
            socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
        )

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._opened.discard(self)
        if self.on_lost:
            self.on_lost()
        if self._task:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def on_url(self, url: bytes) -> None:
        self._request.target += url.decode()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._request.headers[name.decode().lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        self._request.method = self._parser.get_method().decode()
        self._request.body = b"".join(self._body)
        request, self._request, self._body = self._request, Request(), []
        self._task = asyncio.get_running_loop().create_task(self._answer(request))

    async def _answer(self, request: Request) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await self._handle(self, request)

    async def write(self, data: bytes) -> None:
        """Write, split into `split_bytes` if set, and wait while the client does not read."""
        size = self.split_bytes or len(data)
        for start in range(0, len(data), size or 1):
            self._transport.write(data[start : start + size])
            if self.split_bytes:
                await asyncio.sleep(0)
        if not self._writable.is_set():
            await self._writable.wait()

    async def begin_stream(self, content_type: str, *, chunked: bool) -> None:
        """Send the head of a 200 without a content length."""
        self._chunked = chunked
        framing = "transfer-encoding: chunked" if chunked else "connection: close"
        await self.write(
            f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncache-control: no-cache\r\n{framing}\r\n\r\n".encode()
        )

    async def send(self, data: bytes) -> None:
        if self.split_bytes and self._chunked:
            for byte in range(0, len(data), self.split_bytes):
                piece = data[byte : byte + self.split_bytes]
                await self.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        else:
            await self.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    async def end_stream(self) -> None:
        """End the body normally."""
        if self._chunked:
            await self.write(b"0\r\n\r\n")
        else:
            self._transport.close()

    async def reply(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        """Send a complete response; a body other than bytes is sent as JSON."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        known = {each.value: each.phrase for each in HTTPStatus}
        head = {
            "content-type": "application/json",
            **(headers or {}),
            "content-length": str(len(raw)),
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        await self.write(
            f"HTTP/1.1 {status} {known.get(status, 'Unknown')}\r\n{lines}\r\n".encode() + raw
        )

    def finish(self) -> None:
        """Close with FIN after sending what was written."""
        self._transport.close()

    def reset(self) -> None:
        """Close with RST."""
        wire = self._transport.get_extra_info("socket")
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
        self._transport.abort()
