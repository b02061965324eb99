"""The one way out: every HTTP call to the outside is guarded, bounded and timed here.

`open_outbound` gives an `httpx2.AsyncClient` (the `openai` SDK takes it as `http_client`) on aiohttp's connections:
its parser is in C, and a cancelled or closed response closes the socket at once. Every hop of a redirect passes the
guard again; redirects are not followed unless a call asks. Proxies of the environment are ignored.
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

# aiohttp writes these itself; the decoded body has neither the encoding nor the length of the one on the wire.
_REQUEST_HEADERS_DROPPED: Final = frozenset(
    {"content-length", "transfer-encoding", "accept-encoding", "connection"}
)
_RESPONSE_HEADERS_DROPPED: Final = frozenset(
    {b"content-encoding", b"content-length", b"transfer-encoding"}
)


class FirstByteTimeout(httpx2.ReadTimeout):
    """Connected, but nothing of the body came in time."""


class BetweenChunksTimeout(httpx2.ReadTimeout):
    """The body began, and then fell silent."""


class TotalTimeout(httpx2.ReadTimeout):
    """The whole call took longer than it may."""


class BodyTooLarge(httpx2.RemoteProtocolError):
    """The response is longer than the client takes."""


@dataclass(frozen=True, slots=True)
class OutboundTimeouts:
    """Seconds: to connect, until the first byte of the body, between two chunks of it, and for all together."""

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
    """A guarded client for the event loop it is opened on; `trusted` are base URLs of the operator's settings."""
    policy = OutboundPolicy.trusting(*trusted, ports=ports)
    transport = OutboundTransport(timeouts, policy, max_body_bytes=max_body_bytes, resolve=resolve)
    # The transport keeps the time; httpx2's own single read timeout could not tell the four apart.
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
                    use_dns_cache=False,  # every connection is checked anew
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
        """The bound while connecting, sending, and waiting for the head."""
        return _Deadline(
            min(self._first_byte_due, self._ends),
            self._late(FirstByteTimeout, self._first_byte_due),
        )

    def until_next_chunk(self) -> "_Deadline":
        """The bound for the next piece of the body."""
        if not self._started:
            return self.until_first_byte()
        due = asyncio.get_running_loop().time() + self._timeouts.between_chunks
        return _Deadline(min(due, self._ends), self._late(BetweenChunksTimeout, due))

    def chunk_came(self) -> None:
        """The body has begun."""
        self._started = True

    def _late(self, kind: type[httpx2.ReadTimeout], due: float) -> type[httpx2.ReadTimeout]:
        return kind if due < self._ends else TotalTimeout


class _Deadline:
    """`asyncio.timeout_at` that raises what was too slow."""

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
        except TimeoutError as late:
            raise self._error(self._error.__doc__ or "") from late


class _Body(httpx2.AsyncByteStream):
    """The decoded body as it arrives; closing it before its end closes the socket."""

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
                    "the response is longer than this client takes", request=self._request
                )
            yield chunk

    async def _next(self) -> bytes:
        with _translated(self._request):
            async with self._clock.until_next_chunk():
                chunk = await self._response.content.readany()
        self._clock.chunk_came()
        return chunk

    @override
    async def aclose(self) -> None:
        self._response.close()


@contextmanager
def _translated(request: httpx2.Request) -> Iterator[None]:
    """What aiohttp raises, as httpx2's, which is what callers and SDKs know."""
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
            "the connection broke or spoke nonsense", request=request
        ) from error
    except (aiohttp.ClientError, OSError) as error:
        raise httpx2.ReadError("the connection failed", request=request) from error
