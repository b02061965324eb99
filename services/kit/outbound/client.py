"""Outbound HTTP client with an SSRF guard, separate timeouts, and a response size limit.

`open_outbound` gives an `httpx2.AsyncClient` (SDKs take it as `http_client`) over aiohttp connections: aiohttp's parser
is in C, and it closes the socket as soon as a response is cancelled or closed. Redirects are followed only on request,
and each hop passes the guard. Proxy variables of the environment are ignored.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final

import aiohttp
import httpx2
from typing_extensions import override
from yarl import URL

from services.kit.outbound.guard import (
    WEB_PORTS,
    GuardedResolver,
    OutboundPolicy,
    OutboundRefused,
    Resolve,
    resolve_by_system,
)
from services.kit.telemetry.tracing import current_traceparent

__all__ = [
    "BetweenChunksTimeout",
    "BodyTooLarge",
    "FirstByteTimeout",
    "OutboundPolicy",
    "OutboundRefused",
    "OutboundTimeouts",
    "OutboundTransport",
    "TotalTimeout",
    "open_outbound",
]

MAX_RESPONSE_BYTES: Final = 64 * 1024 * 1024
MAX_CONNECTIONS: Final = 4096
KEEP_ALIVE_SECONDS: Final = 30.0

# aiohttp sets the request headers itself; the decoded body differs from the wire in encoding and length.
_REQUEST_HEADERS_DROPPED: Final = frozenset(
    {"content-length", "transfer-encoding", "accept-encoding", "connection"}
)
_RESPONSE_HEADERS_DROPPED: Final = frozenset(
    {b"content-encoding", b"content-length", b"transfer-encoding"}
)


class FirstByteTimeout(httpx2.ReadTimeout):
    """No byte of the response body arrived in time."""


class BetweenChunksTimeout(httpx2.ReadTimeout):
    """The next chunk of the response body did not arrive in time."""


class TotalTimeout(httpx2.ReadTimeout):
    """The call exceeded its total time limit."""


class BodyTooLarge(httpx2.RemoteProtocolError):
    """The response body is over the client's limit."""


@dataclass(frozen=True, slots=True)
class OutboundTimeouts:
    """Timeouts in seconds: connect, first byte of the body, between two chunks, total."""

    connect: float = 5.0
    first_byte: float = 30.0
    between_chunks: float = 30.0
    total: float = 300.0


@asynccontextmanager
async def open_outbound(
    timeouts: OutboundTimeouts,
    *,
    trusted: Iterable[str] = (),
    ports: frozenset[int] = WEB_PORTS,
    max_body_bytes: int = MAX_RESPONSE_BYTES,
    resolve: Resolve = resolve_by_system,
) -> AsyncIterator[httpx2.AsyncClient]:
    """Open a guarded client for the current event loop; `trusted` are base URLs from the operator's settings."""
    policy = OutboundPolicy.trusting(*trusted, ports=ports)
    transport = OutboundTransport(timeouts, policy, max_body_bytes=max_body_bytes, resolve=resolve)
    # The transport enforces the timeouts; httpx2's single read timeout cannot distinguish them.
    async with httpx2.AsyncClient(transport=transport, timeout=None, trust_env=False) as client:
        yield client


class OutboundTransport(httpx2.AsyncBaseTransport):
    """An httpx2 transport over a guarded aiohttp pool, bound to the event loop of its first call."""

    def __init__(
        self,
        timeouts: OutboundTimeouts,
        policy: OutboundPolicy,
        *,
        max_body_bytes: int = MAX_RESPONSE_BYTES,
        resolve: Resolve = resolve_by_system,
    ) -> None:
        self._timeouts = timeouts
        self._policy = policy
        self._max_body_bytes = max_body_bytes
        self._resolver = GuardedResolver(policy, resolve)
        self._opened: aiohttp.ClientSession | None = None

    @override
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        url = URL(str(request.url), encoded=True)
        self._policy.check_url(url)
        clock = _Clock(self._timeouts)
        with _translated(request):
            async with clock.until_first_byte():
                response = await self._send(request, url)
        return httpx2.Response(
            response.status,
            headers=[
                each
                for each in response.raw_headers
                if each[0].lower() not in _RESPONSE_HEADERS_DROPPED
            ],
            stream=_Body(request, response, clock, self._max_body_bytes),
            extensions={
                "http_version": b"HTTP/1.1",
                "reason_phrase": (response.reason or "").encode("ascii", "ignore"),
            },
        )

    @override
    async def aclose(self) -> None:
        if self._opened:
            await self._opened.close()

    async def _send(self, request: httpx2.Request, url: URL) -> aiohttp.ClientResponse:
        headers = [
            (name, value)
            for name, value in request.headers.multi_items()
            if name not in _REQUEST_HEADERS_DROPPED
        ]
        if "traceparent" not in request.headers and (traceparent := current_traceparent()):
            headers.append(("traceparent", traceparent))
        return await self._session().request(
            request.method,
            url,
            data=await request.aread() or None,
            headers=headers,
            allow_redirects=False,
            skip_auto_headers=("User-Agent", "Content-Type", "Accept"),
        )

    def _session(self) -> aiohttp.ClientSession:
        if self._opened is None:
            self._opened = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    resolver=self._resolver,
                    use_dns_cache=False,  # the guard checks every connection
                    limit=MAX_CONNECTIONS,
                    keepalive_timeout=KEEP_ALIVE_SECONDS,
                    ssl=ssl.create_default_context(),
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=self._timeouts.connect, ceil_threshold=3600
                ),
                trust_env=False,
            )
        return self._opened


class _Clock:
    """The deadlines of one call."""

    def __init__(self, timeouts: OutboundTimeouts) -> None:
        self._timeouts = timeouts
        began = asyncio.get_running_loop().time()
        self._ends = began + timeouts.total
        self._first_byte_due = began + timeouts.connect + timeouts.first_byte
        self._started = False

    def until_first_byte(self) -> "_Deadline":
        """The deadline of connecting, sending and the first byte."""
        return _Deadline(
            min(self._first_byte_due, self._ends),
            self._error_at(FirstByteTimeout, self._first_byte_due),
        )

    def until_next_chunk(self) -> "_Deadline":
        """The deadline of the next chunk of the body."""
        if not self._started:
            return self.until_first_byte()
        due = asyncio.get_running_loop().time() + self._timeouts.between_chunks
        return _Deadline(min(due, self._ends), self._error_at(BetweenChunksTimeout, due))

    def mark_started(self) -> None:
        """Note that the body has begun."""
        self._started = True

    def _error_at(self, kind: type[httpx2.ReadTimeout], due: float) -> type[httpx2.ReadTimeout]:
        return kind if due < self._ends else TotalTimeout


class _Deadline:
    """`asyncio.timeout_at` that raises a specific timeout error."""

    def __init__(self, at: float, error: type[httpx2.ReadTimeout]) -> None:
        self._bound = asyncio.timeout_at(at)
        self._error = error

    async def __aenter__(self) -> None:
        await self._bound.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        try:
            await self._bound.__aexit__(kind, error, trace)  # pyright: ignore[reportArgumentType]
        except TimeoutError as timeout:
            raise self._error(self._error.__doc__ or "") from timeout


class _Body(httpx2.AsyncByteStream):
    """The decoded body as a stream; closing it before its end closes the socket."""

    def __init__(
        self,
        request: httpx2.Request,
        response: aiohttp.ClientResponse,
        clock: _Clock,
        max_bytes: int,
    ) -> None:
        self._request = request
        self._response = response
        self._clock = clock
        self._left = max_bytes

    @override
    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await self._next():
            self._left -= len(chunk)
            if self._left < 0:
                raise BodyTooLarge(
                    "the response body is over the client's limit", request=self._request
                )
            yield chunk

    async def _next(self) -> bytes:
        with _translated(self._request):
            async with self._clock.until_next_chunk():
                chunk = await self._response.content.readany()
        self._clock.mark_started()
        return chunk

    @override
    async def aclose(self) -> None:
        self._response.close()


@contextmanager
def _translated(request: httpx2.Request) -> Iterator[None]:
    """Translate aiohttp's exceptions into httpx2's, which callers and SDKs handle."""
    try:
        yield
    except httpx2.RequestError as error:
        error.request = request
        raise
    except (aiohttp.ConnectionTimeoutError, aiohttp.ServerTimeoutError) as error:
        raise httpx2.ConnectTimeout("no connection in time", request=request) from error
    except aiohttp.ClientConnectorError as error:
        raise httpx2.ConnectError("cannot connect", request=request) from error
    except (
        aiohttp.ClientPayloadError,
        aiohttp.ServerDisconnectedError,
        aiohttp.ClientResponseError,
    ) as error:
        raise httpx2.RemoteProtocolError(
            "the connection broke or the response is malformed", request=request
        ) from error
    except (aiohttp.ClientError, OSError) as error:
        raise httpx2.ReadError("the connection failed", request=request) from error
