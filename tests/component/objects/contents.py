"""Streams of content, and what the store says about it."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

from services.kit.errors import ErrorCode, RpcError
from services.kit.storage.objects import ObjectStore

MIB = 1024**2
ALWAYS = datetime(9999, 1, 1, tzinfo=UTC)
"""After the begin of every upload."""


async def stream(size: int, chunk: int = MIB) -> AsyncIterator[bytes]:
    """`size` bytes of which no two chunks are equal."""
    for at in range(0, size, chunk):
        length = min(chunk, size - at)
        yield (at.to_bytes(8) * (length // 8 + 1))[:length]


async def leftovers(objects: ObjectStore, prefix: str) -> list[str]:
    """Keys of the uploads below a prefix that have not ended."""
    return [each.upload.key async for each in objects.uploads.leftovers(ALWAYS, prefix)]


async def is_stored(objects: ObjectStore, key: str) -> bool:
    """Whether there is an object; any error but NOT_FOUND is raised."""
    try:
        await objects.head(key)
    except RpcError as error:
        if error.code is not ErrorCode.NOT_FOUND:
            raise
        return False
    return True
