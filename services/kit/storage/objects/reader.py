"""Reads of an object: whole, a range, or in chunks with bounded memory."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from services.kit.errors import RpcError
from services.kit.storage.objects.connection import translated

CHUNK_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object without its content. `size` is in bytes; `sha256` is known if it was stored by one request."""

    key: str
    size: int
    etag: str
    content_type: str
    modified_at: datetime
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class ByteRange:
    """`length` bytes from `start`, or fewer at the end of the object; without a `length` all to its end."""

    start: int
    length: int | None = None

    def header(self) -> str:
        """The value of the `Range` header.

        Raises:
            RpcError: INVALID_ARGUMENT: the start is negative, or the length is not positive.
        """
        if self.start < 0 or (self.length is not None and self.length < 1):
            raise RpcError.invalid("range", "needs a start from 0 and a length from 1")
        last = "" if self.length is None else self.start + self.length - 1
        return f"bytes={self.start}-{last}"


class _Body(Protocol):
    """The client's body of a reply."""

    async def read(self, amt: int | None = None, /) -> bytes: ...


class ObjectReader:
    """An open object. `info.size` is that of the whole object, `size` of what is read."""

    def __init__(self, info: ObjectInfo, size: int, body: _Body) -> None:
        self.info = info
        self.size = size
        self._body = body

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Chunks of at most 256 KiB; a slow reader slows the store down.

        Raises:
            RpcError: UNAVAILABLE: the connection broke. Open a range with the same `etag` to read on.
        """
        return self._chunks()

    async def read(self) -> bytes:
        """All that is left, in memory. UNAVAILABLE as for the chunks."""
        return b"".join([chunk async for chunk in self])

    async def _chunks(self) -> AsyncIterator[bytes]:
        while True:
            with translated("object"):
                chunk = await self._body.read(CHUNK_BYTES)
            if not chunk:
                return
            yield chunk
