"""Presigned requests: a client sends or fetches content directly, and holds no credentials."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import quote

from services.kit.clock import Clock
from services.kit.errors import RpcError
from services.kit.storage.objects.connection import Connection
from services.kit.storage.objects.keys import check_content_type, check_key, check_sha256

MAX_EXPIRY: Final = timedelta(hours=24)
"""Longest validity. S3 allows 7 days, but a leaked URL works until it expires."""
MAX_PUT_BYTES: Final = 5 * 1024**3
"""S3's limit of one request; more goes by parts."""
MAX_FILENAME: Final = 255


@dataclass(frozen=True, slots=True)
class PresignedRequest:
    """A request that anyone who has it may send until it expires, with exactly these headers."""

    method: str
    url: str = field(repr=False)
    """Contains the signature: not for logs."""
    headers: Mapping[str, str]
    expires_at: datetime


class Presigner:
    """Signs requests; the service refuses another key, method, or value of a signed header."""

    def __init__(self, connection: Connection, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock

    async def get(
        self, key: str, expires: timedelta, *, filename: str | None = None
    ) -> PresignedRequest:
        """A request for an object; with a `filename` browsers save the content and never show it."""
        asked: dict[str, Any] = {"Key": check_key(key)}
        if filename is not None:
            asked["ResponseContentDisposition"] = _attachment(filename)
        return await self._sign("get_object", "GET", asked, {}, expires)

    async def put(
        self,
        key: str,
        expires: timedelta,
        *,
        content_length: int | None = None,
        content_type: str | None = None,
        sha256: str | None = None,
    ) -> PresignedRequest:
        """A request that stores an object; what is given here is signed, and other content is refused."""
        asked: dict[str, Any] = {"Key": check_key(key)}
        headers: dict[str, str] = {}
        if content_type is not None:
            asked["ContentType"] = headers["Content-Type"] = check_content_type(content_type)
        return await self._sign_content(
            "put_object", asked, headers, expires, content_length, sha256
        )

    async def part(
        self,
        key: str,
        upload_id: str,
        number: int,
        expires: timedelta,
        *,
        content_length: int | None,
        sha256: str | None,
    ) -> PresignedRequest:
        """A request that stores one part of an upload; the reply's `ETag` header completes it."""
        asked: dict[str, Any] = {"Key": key, "UploadId": upload_id, "PartNumber": number}
        return await self._sign_content("upload_part", asked, {}, expires, content_length, sha256)

    async def _sign_content(
        self,
        operation: str,
        asked: dict[str, Any],
        headers: dict[str, str],
        expires: timedelta,
        content_length: int | None,
        sha256: str | None,
    ) -> PresignedRequest:
        if content_length is not None:
            if not 0 <= content_length <= MAX_PUT_BYTES:
                raise RpcError.invalid("contentLength", f"must be from 0 to {MAX_PUT_BYTES}")
            asked["ContentLength"] = content_length
            headers["Content-Length"] = str(content_length)
        if sha256 is not None:
            checksum = base64.b64encode(bytes.fromhex(check_sha256(sha256))).decode()
            asked["ChecksumSHA256"] = headers["x-amz-checksum-sha256"] = checksum
        return await self._sign(operation, "PUT", asked, headers, expires)

    async def _sign(
        self,
        operation: str,
        method: str,
        asked: dict[str, Any],
        headers: Mapping[str, str],
        expires: timedelta,
    ) -> PresignedRequest:
        seconds = int(expires.total_seconds())
        if not 1 <= seconds <= MAX_EXPIRY.total_seconds():
            raise RpcError.invalid(
                "expires", f"must be from 1 s to {MAX_EXPIRY.total_seconds():g} s"
            )
        client: Any = await self._connection.presigner()
        expires_at = self._clock() + timedelta(seconds=seconds)
        url: str = await client.generate_presigned_url(
            operation, Params={"Bucket": self._connection.bucket, **asked}, ExpiresIn=seconds
        )
        return PresignedRequest(method, url, headers, expires_at)


def _attachment(filename: str) -> str:
    """The header of RFC 6266; characters outside ASCII are percent-encoded."""
    if not 1 <= len(filename) <= MAX_FILENAME or not filename.isprintable():
        raise RpcError.invalid("filename", f"must be 1 to {MAX_FILENAME} printable characters")
    return f"attachment; filename*=UTF-8''{quote(filename, safe='')}"
