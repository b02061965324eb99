"""Multipart uploads: parts that clients send by presigned requests, joined into one object at the end."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import Field

from services.kit.contract import Message
from services.kit.errors import ErrorCode, RpcError
from services.kit.storage.objects.connection import TRANSFER_SECONDS, Connection
from services.kit.storage.objects.keys import check_content_type, check_key, check_prefix
from services.kit.storage.objects.presigned import PresignedRequest, Presigner

if TYPE_CHECKING:
    from types_aiobotocore_s3.type_defs import CompletedPartTypeDef

MAX_PARTS: Final = 10_000
"""S3's limit; every part but the last one has at least 5 MiB."""
MAX_UPLOAD_ID: Final = 1024


class Upload(Message):
    """An upload that has begun; nothing is at `key` until it is completed."""

    key: str
    upload_id: str = Field(min_length=1, max_length=MAX_UPLOAD_ID)


class UploadedPart(Message):
    """A part that the store has, by the `ETag` of its reply."""

    number: int = Field(ge=1, le=MAX_PARTS)
    etag: Annotated[str, Field(min_length=1, max_length=256)]


@dataclass(frozen=True, slots=True)
class Leftover:
    """An upload that was neither completed nor aborted; its parts take space."""

    upload: Upload
    started_at: datetime


class Uploads:
    """Begins, completes, aborts and lists uploads."""

    def __init__(self, connection: Connection, presigner: Presigner) -> None:
        self._connection = connection
        self._presigner = presigner
        self._bucket = connection.bucket

    async def begin(self, key: str, *, content_type: str = "application/octet-stream") -> Upload:
        """Begin an upload. A repeat begins another one."""
        check_key(key)
        check_content_type(content_type)
        async with self._connection.calling() as client:
            reply = await client.create_multipart_upload(
                Bucket=self._bucket, Key=key, ContentType=content_type
            )
        return Upload(key=key, upload_id=reply["UploadId"])

    async def presign_part(
        self,
        upload: Upload,
        number: int,
        expires: timedelta,
        *,
        content_length: int | None = None,
        sha256: str | None = None,
    ) -> PresignedRequest:
        """A request that stores part `number`, from 1 to 10,000; a repeat replaces the part."""
        if not 1 <= number <= MAX_PARTS:
            raise RpcError.invalid("number", f"must be from 1 to {MAX_PARTS}")
        return await self._presigner.part(
            check_key(upload.key),
            upload.upload_id,
            number,
            expires,
            content_length=content_length,
            sha256=sha256,
        )

    async def complete(self, upload: Upload, parts: Sequence[UploadedPart]) -> str:
        """Join the parts in the order of their numbers, replacing an object at the key; returns the object's ETag.

        A repeat with the same parts succeeds while the object is there.

        Raises:
            RpcError: NOT_FOUND: the upload was aborted. INVALID_ARGUMENT: no such part, or one below 5 MiB that is not the
                last.
        """
        check_key(upload.key)
        numbers = [part.number for part in parts]
        if not numbers or len(set(numbers)) != len(numbers):
            raise RpcError.invalid("parts", "must name each part once")
        joined: list[CompletedPartTypeDef] = [
            {"PartNumber": part.number, "ETag": part.etag}
            for part in sorted(parts, key=lambda part: part.number)
        ]
        async with self._connection.calling("upload", TRANSFER_SECONDS) as client:
            reply = await client.complete_multipart_upload(
                Bucket=self._bucket,
                Key=upload.key,
                UploadId=upload.upload_id,
                MultipartUpload={"Parts": joined},
            )
        return reply["ETag"]

    async def abort(self, upload: Upload) -> None:
        """Delete the parts; no error if the upload was completed or aborted before."""
        check_key(upload.key)
        try:
            async with self._connection.calling("upload") as client:
                await client.abort_multipart_upload(
                    Bucket=self._bucket, Key=upload.key, UploadId=upload.upload_id
                )
        except RpcError as error:
            if error.code is not ErrorCode.NOT_FOUND:
                raise

    async def leftovers(
        self, started_before: datetime, prefix: str = ""
    ) -> AsyncIterator[Leftover]:
        """Uploads below a prefix that began before a time and have not ended, such as those of a killed process."""
        asked: dict[str, Any] = {"Bucket": self._bucket, "Prefix": check_prefix(prefix)}
        while True:
            async with self._connection.calling() as client:
                page = await client.list_multipart_uploads(**asked)
            for each in page.get("Uploads", ()):
                key, upload_id, began = each.get("Key"), each.get("UploadId"), each.get("Initiated")
                if key and upload_id and began and began < started_before:
                    yield Leftover(Upload(key=key, upload_id=upload_id), began.astimezone(UTC))
            if not page.get("IsTruncated"):
                return
            asked["KeyMarker"] = page["NextKeyMarker"]
            asked["UploadIdMarker"] = page["NextUploadIdMarker"]
