"""Objects of one bucket of an S3 service: put, get, head, delete; presigned requests and uploads for clients."""

import asyncio
import base64
import hashlib
import zlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC
from typing import Any, Final

import structlog

from services.kit.clock import Clock, utc_now
from services.kit.errors import ErrorCode, RpcError, unavailable
from services.kit.failpoints import failpoint
from services.kit.storage.objects.connection import TRANSFER_SECONDS, Connection
from services.kit.storage.objects.keys import check_content_type, check_key, check_sha256
from services.kit.storage.objects.presigned import Presigner
from services.kit.storage.objects.reader import ByteRange, ObjectInfo, ObjectReader
from services.kit.storage.objects.settings import ObjectStoreSettings
from services.kit.storage.objects.uploads import MAX_PARTS, Upload, UploadedPart, Uploads

PART_BYTES: Final = 8 * 1024**2
"""Content up to this size is sent by one request, more in parts of this size."""
MAX_OBJECT_BYTES: Final = MAX_PARTS * PART_BYTES
MAX_READ_BYTES: Final = 64 * 1024**2
DELETE_BATCH: Final = 1000
"""S3's limit of keys per call."""
BINARY: Final = "application/octet-stream"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as it was stored: its size in bytes, its SHA-256 in hexadecimal digits, and the store's ETag."""

    key: str
    size: int
    sha256: str
    etag: str


class ObjectStore:
    """The objects of one bucket. See `check_key` for what a key may be.

    Every call raises UNAVAILABLE while the service is away; the outcome of a write is then unknown, and a repeat is
    harmless. The client has sent it three times by then, so callers need no retries of their own.
    """

    def __init__(self, settings: ObjectStoreSettings, clock: Clock = utc_now) -> None:
        self._connection = Connection(settings)
        self._bucket = settings.bucket
        self.presigned = Presigner(self._connection, clock)
        self.uploads = Uploads(self._connection, self.presigned)

    async def close(self) -> None:
        await self._connection.close()

    async def put(
        self, key: str, content: bytes, *, content_type: str = BINARY, sha256: str | None = None
    ) -> StoredObject:
        """Store an object or replace it; readers see the old or the new one, whole. As `put_stream` for its errors."""
        return await self.put_stream(key, _once(content), content_type=content_type, sha256=sha256)

    async def put_stream(
        self,
        key: str,
        chunks: AsyncIterable[bytes],
        *,
        content_type: str = BINARY,
        sha256: str | None = None,
        max_bytes: int = MAX_OBJECT_BYTES,
    ) -> StoredObject:
        """Store an object from a stream, in parts of 8 MiB, sent one after another; in at most 48 MiB of memory.

        If the stream fails or the caller is cancelled, nothing is stored and the parts are deleted; parts of a killed
        process remain as `uploads.leftovers`.

        Raises:
            RpcError: INVALID_ARGUMENT: the content has another hash than `sha256`. PAYLOAD_TOO_LARGE: it is over `max_bytes`.
        """
        check_key(key)
        check_content_type(content_type)
        writer = _Writer(None if sha256 is None else check_sha256(sha256))
        async with aclosing(_parts_of(chunks, max_bytes)) as parts:
            first = await anext(parts)
            if len(first) < PART_BYTES:
                await writer.add(first)
                etag = await self._put_whole(key, first, content_type, writer.sha256())
            else:
                etag = await self._put_parts(key, first, parts, content_type, writer)
        return StoredObject(key, writer.size, writer.sha256(), etag)

    async def get(
        self, key: str, byte_range: ByteRange | None = None, *, max_bytes: int = MAX_READ_BYTES
    ) -> bytes:
        """The content of an object, or of a range of it, in memory.

        Raises:
            RpcError: NOT_FOUND; OUT_OF_RANGE: the range begins behind the end; PAYLOAD_TOO_LARGE: it is over `max_bytes`.
        """
        async with self.open(key, byte_range) as reader:
            if reader.size > max_bytes:
                raise _too_large(max_bytes)
            return await reader.read()

    @asynccontextmanager
    async def open(
        self, key: str, byte_range: ByteRange | None = None, *, etag: str | None = None
    ) -> AsyncIterator[ObjectReader]:
        """Open an object, or a range of it, to read it in chunks; it holds one of 64 connections until it is closed.

        Raises:
            RpcError: NOT_FOUND; OUT_OF_RANGE as for `get`; FAILED_PRECONDITION: the object no longer has this `etag`.
        """
        asked: dict[str, Any] = {"Bucket": self._bucket, "Key": check_key(key)}
        if byte_range is not None:
            asked["Range"] = byte_range.header()
        if etag is not None:
            asked["IfMatch"] = etag
        async with self._connection.calling() as client:
            reply = await client.get_object(**asked)
        body, size = reply["Body"], reply["ContentLength"]
        whole = int(reply["ContentRange"].rpartition("/")[2]) if "ContentRange" in reply else size
        info = ObjectInfo(
            key,
            whole,
            reply["ETag"],
            reply.get("ContentType", BINARY),
            reply["LastModified"].astimezone(UTC),
        )
        try:
            yield ObjectReader(info, size, body)
        finally:
            body.close()

    async def head(self, key: str) -> ObjectInfo:
        """An object without its content.

        Raises:
            RpcError: NOT_FOUND.
        """
        check_key(key)
        async with self._connection.calling() as client:
            reply = await client.head_object(Bucket=self._bucket, Key=key, ChecksumMode="ENABLED")
        checksum = reply.get("ChecksumSHA256", "-")
        return ObjectInfo(
            key,
            reply["ContentLength"],
            reply["ETag"],
            reply.get("ContentType", BINARY),
            reply["LastModified"].astimezone(UTC),
            None if "-" in checksum else base64.b64decode(checksum).hex(),  # `-`: of parts' hashes
        )

    async def delete(self, key: str) -> None:
        """Delete an object; no error if there is none."""
        check_key(key)
        async with self._connection.calling() as client:
            await client.delete_object(Bucket=self._bucket, Key=key)

    async def delete_many(self, keys: Iterable[str]) -> None:
        """Delete objects, up to 1,000 per call; those that are absent are no error.

        Raises:
            RpcError: UNAVAILABLE: some may be left; a repeat deletes them.
        """
        checked = [check_key(key) for key in keys]
        for at in range(0, len(checked), DELETE_BATCH):
            batch = checked[at : at + DELETE_BATCH]
            async with self._connection.calling() as client:
                reply = await client.delete_objects(
                    Bucket=self._bucket,
                    Delete={"Objects": [{"Key": key} for key in batch], "Quiet": True},
                )
            if failed := reply.get("Errors"):
                log.error("objects.not_deleted", count=len(failed), code=failed[0].get("Code"))
                raise unavailable()

    async def _put_whole(self, key: str, content: bytes, content_type: str, sha256: str) -> str:
        async with self._connection.calling(seconds=TRANSFER_SECONDS) as client:
            reply = await client.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=content,
                ContentType=content_type,
                ChecksumSHA256=_base64(bytes.fromhex(sha256)),
            )
        return reply["ETag"]

    async def _put_parts(
        self,
        key: str,
        first: bytes,
        rest: AsyncIterable[bytes],
        content_type: str,
        writer: "_Writer",
    ) -> str:
        upload = await self.uploads.begin(key, content_type=content_type)
        try:
            parts = [await self._put_part(upload, 1, first, writer)]
            async for part in rest:
                parts.append(await self._put_part(upload, len(parts) + 1, part, writer))
            writer.sha256()
            await failpoint("objects.before_complete")
            return await self.uploads.complete(upload, parts)
        except BaseException:
            await self._abandon(upload)
            raise

    async def _put_part(
        self, upload: Upload, number: int, content: bytes, writer: "_Writer"
    ) -> UploadedPart:
        await writer.add(content)
        async with self._connection.calling("upload", TRANSFER_SECONDS) as client:
            reply = await client.upload_part(
                Bucket=self._bucket,
                Key=upload.key,
                UploadId=upload.upload_id,
                PartNumber=number,
                Body=content,
                ChecksumCRC32=_base64(zlib.crc32(content).to_bytes(4)),
            )
        await failpoint("objects.after_part")
        return UploadedPart(number=number, etag=reply["ETag"])

    async def _abandon(self, upload: Upload) -> None:
        try:
            await self.uploads.abort(upload)
        except RpcError as error:  # it is listed as a leftover; the caller gets the first error
            log.warning("objects.upload_left", code=error.code)


class _Writer:
    """Counts and hashes what was sent."""

    def __init__(self, expected: str | None) -> None:
        self.size = 0
        self._expected = expected
        self._digest = hashlib.sha256()

    async def add(self, content: bytes) -> None:
        self.size += len(content)
        await asyncio.to_thread(self._digest.update, content)  # 8 MiB take some 20 ms

    def sha256(self) -> str:
        """The hash so far; if it is another one than expected: INVALID_ARGUMENT."""
        found = self._digest.hexdigest()
        if self._expected not in (None, found):
            raise RpcError.invalid("sha256", "the content has another hash")
        return found


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def _parts_of(chunks: AsyncIterable[bytes], max_bytes: int) -> AsyncGenerator[bytes]:
    """Parts of equal size and a shorter last one; one empty part for no content."""
    size, buffer = 0, bytearray()
    async for chunk in chunks:
        size += len(chunk)
        if size > max_bytes:
            raise _too_large(max_bytes)
        for at in range(0, len(chunk), PART_BYTES):
            buffer += chunk[at : at + PART_BYTES]
            if len(buffer) >= PART_BYTES:
                yield bytes(buffer[:PART_BYTES])
                del buffer[:PART_BYTES]
    if buffer or size == 0:
        yield bytes(buffer)


def _too_large(max_bytes: int) -> RpcError:
    return RpcError(ErrorCode.PAYLOAD_TOO_LARGE, f"The content is over {max_bytes} bytes.")


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()
