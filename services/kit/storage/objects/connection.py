"""The S3 client of one bucket: opened on first use, with a bounded pool, time limits and errors of the catalogue.

The client is the only retry layer: it sends a call at most 3 times, after connection errors, 5xx and throttling. Every
call may be repeated: a write stores the same bytes under the same key.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from typing import TYPE_CHECKING, Any, Final, cast

import aiohttp
import structlog
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import (
    ClientError,
    ConnectionError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
)

from services.kit.errors import ErrorCode, RpcError, internal_error, not_found, unavailable
from services.kit.storage.objects.settings import ObjectStoreSettings

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client

CONNECT_SECONDS: Final = 2.0
READ_SECONDS: Final = 20.0
"""Time without a byte of the reply after which a call is sent again."""
CALL_SECONDS: Final = 10.0
"""Time limit of a call without content, with its retries."""
TRANSFER_SECONDS: Final = 60.0
"""Time limit of a call that sends content or joins parts, with its retries."""
MAX_ATTEMPTS: Final = 3
MAX_CONNECTIONS: Final = 64
"""Open connections; more calls wait within their time limit. An open reader holds one."""

_UNREACHABLE: Final = (
    ConnectionError,  # botocore's
    HTTPClientError,
    IncompleteReadError,
    CredentialRetrievalError,
    aiohttp.ClientError,
    OSError,
    TimeoutError,
)
_REFUSALS: Final[Mapping[str, Callable[[str], RpcError]]] = {
    "404": not_found,  # the reply to HEAD has no body, so no code
    "NoSuchKey": not_found,
    "NoSuchUpload": lambda _: not_found("upload"),
    "InvalidRange": lambda _: RpcError(
        ErrorCode.OUT_OF_RANGE, "range: begins behind the end of the object"
    ),
    "PreconditionFailed": lambda _: RpcError(
        ErrorCode.FAILED_PRECONDITION, "The object was replaced by another one."
    ),
    "EntityTooLarge": lambda _: RpcError(ErrorCode.PAYLOAD_TOO_LARGE, "The object is too large."),
    "EntityTooSmall": lambda _: RpcError.invalid(
        "parts", "every part but the last one needs at least 5 MiB"
    ),
    "InvalidPart": lambda _: RpcError.invalid(
        "parts", "names a part that was not uploaded or has another ETag"
    ),
    "InvalidPartOrder": lambda _: RpcError.invalid("parts", "must be in ascending order"),
    "ObjectParentIsFile": lambda _: RpcError.invalid("key", "is below another object's key"),
    "ExistingObjectIsDirectory": lambda _: RpcError.invalid("key", "is a folder of other keys"),
}
_TRANSIENT: Final = frozenset({"BadDigest", "XAmzContentSHA256Mismatch", "RequestTimeout"})
"""Refusals of content that was damaged on its way or came too slowly."""
_NO_FILES: Final = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}
"""With credentials from settings, what a user has configured for Amazon's command line has no effect."""

log = structlog.get_logger()


class Connection:
    """Clients for calls and for presigning, which differ where clients reach the service by another address."""

    def __init__(self, settings: ObjectStoreSettings) -> None:
        self.bucket = settings.bucket
        self._settings = settings
        self._stack = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._clients: dict[str | None, S3Client] = {}

    async def close(self) -> None:
        """Close the connections; open readers fail."""
        self._clients.clear()
        await self._stack.aclose()

    @asynccontextmanager
    async def calling(
        self, what: str = "object", seconds: float = CALL_SECONDS
    ) -> AsyncIterator["S3Client"]:
        """The client for one call, with a time limit.

        Raises:
            RpcError: NOT_FOUND for a missing `what`; UNAVAILABLE: the outcome is unknown; or what the service refused.
        """
        with translated(what):
            async with asyncio.timeout(seconds):
                yield await self._client(self._settings.url)

    async def presigner(self) -> "S3Client":
        """The client that signs URLs for clients."""
        return await self._client(self._settings.public_url or self._settings.url)

    async def _client(self, url: str | None) -> "S3Client":
        async with self._opening:
            if url not in self._clients:
                self._clients[url] = await self._stack.enter_async_context(self._open(url))
            return self._clients[url]

    def _open(self, url: str | None) -> "AbstractAsyncContextManager[S3Client]":
        key_id, secret = self._settings.key_id, self._settings.secret
        session: Any = AioSession(session_vars=_NO_FILES if key_id else None)
        client = session.create_client(
            "s3",
            endpoint_url=url,
            region_name=self._settings.region,
            aws_access_key_id=key_id.get_secret_value() if key_id else None,
            aws_secret_access_key=secret.get_secret_value() if secret else None,
            config=_config(path_style=url is not None),
        )
        return cast("AbstractAsyncContextManager[S3Client]", client)


def _config(*, path_style: bool) -> AioConfig:
    return AioConfig(
        signature_version="s3v4",
        s3={"addressing_style": "path" if path_style else "auto"},
        # Other services than Amazon's refuse the checksums that newer clients add on their own.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"mode": "standard", "total_max_attempts": MAX_ATTEMPTS},
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        max_pool_connections=MAX_CONNECTIONS,
        proxies={},  # not those of the environment
        warm_up_loader_caches=True,  # reads the service model in a thread
    )


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Translates the client's errors, whose messages name keys and hosts."""
    try:
        yield
    except ClientError as error:
        raise _refusal(error, what) from None
    except _UNREACHABLE as error:
        log.warning("objects.unreachable", error=type(error).__name__)
        raise unavailable() from None


def _refusal(error: ClientError, what: str) -> RpcError:
    reply = cast("dict[str, Any]", error.response)
    code = str(reply.get("Error", {}).get("Code", ""))
    status = int(reply.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in _REFUSALS:
        return _REFUSALS[code](what)
    log.error("objects.refused", code=code, status=status, operation=error.operation_name)
    is_transient = status >= 500 or status == 429 or code in _TRANSIENT
    return unavailable() if is_transient else internal_error()
