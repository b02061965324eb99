"""RPC client: calls other apps' methods through the sidecar, and raises their errors unchanged."""

import os
import re
import uuid
from collections.abc import AsyncGenerator
from typing import Final

import aiohttp

from services.kit.access.identity import CallerIdentity
from services.kit.contract import AnyMethod, Ev, Message, Req, Res, RpcMethod
from services.kit.dapr.client_stream import CONNECT_SECONDS, ClientStream
from services.kit.dapr.rpc_replies import error_of, parse_reply
from services.kit.errors import unavailable
from services.kit.http.idempotency import MAX_KEY_LENGTH
from services.kit.telemetry.tracing import current_traceparent

MAX_CONNECTIONS: Final = 256
"""Concurrent unary calls; further ones wait for a connection within their time limit."""
KEEP_ALIVE_SECONDS: Final = 30.0
IDEMPOTENCY_KEY: Final = re.compile(rf"[\x21-\x7e]{{1,{MAX_KEY_LENGTH}}}")


class RpcClient:
    """Pooled HTTP client of this app's sidecar; over gRPC, daprd truncates error bodies.

    It never repeats a unary call: retries belong to the caller, who knows the call's idempotency key. The sidecar itself
    repeats only a call to an unreachable sidecar, with the same `x-call-id`.
    """

    def __init__(self) -> None:
        self._base = f"http://127.0.0.1:{os.environ.get('DAPR_HTTP_PORT', '3500')}/v1.0/invoke"
        token = os.environ.get("DAPR_API_TOKEN")
        self._headers = {"content-type": "application/json"}
        if token:
            self._headers["dapr-api-token"] = token
        self._calls: aiohttp.ClientSession | None = None
        self._streams: aiohttp.ClientSession | None = None

    async def call(
        self,
        method: RpcMethod[Req, Res],
        request: Req,
        *,
        on_behalf_of: CallerIdentity | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> Res:
        """Call a method once.

        `on_behalf_of` is the user of a method with a scope; this app's manifest lists the method in `calls`. `timeout`
        shortens the contract's time limit, in seconds.

        Raises:
            RpcError: the method's error; UNAVAILABLE, with unknown outcome, if the app cannot be reached or its time
                limit passes; INTERNAL if the reply is not the contract's.
            TypeError: the contract does not allow these arguments.
        """
        if method.is_stream:
            raise TypeError(f"{method.name} is a stream: use stream()")
        headers = self._headers_of(method, request, on_behalf_of, idempotency_key)
        limit = method.timeout_seconds if timeout is None else min(timeout, method.timeout_seconds)
        if limit <= 0:
            raise unavailable()
        try:
            async with self._open_calls().post(
                self._url(method),
                data=request.to_json(),
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=limit, sock_connect=CONNECT_SECONDS),
            ) as reply:
                body = await reply.read()
        except (TimeoutError, aiohttp.ClientError) as error:
            raise unavailable() from error
        if reply.status == 200:
            return parse_reply(method, body)
        raise error_of(method, body, reply.status)

    def stream(
        self,
        method: RpcMethod[Req, Ev],
        request: Req,
        *,
        on_behalf_of: CallerIdentity | None = None,
        idempotency_key: str | None = None,
        after: int | None = None,
    ) -> AsyncGenerator[Ev]:
        """The events of a stream, those after the seq `after`, each once, until the terminal one.

        Over a `reconnect` or a lost connection it resumes after the last event. A method that accepts an idempotency key
        gets a new one if none is given, so that a resumed call is the same call; to resume one in another process pass
        both the key and `after`. Wrap the generator in `aclosing`: closing it disconnects from the app.

        Raises:
            RpcError: the method's error, also from the stream's event `error`; UNAVAILABLE if the app cannot be reached
                at first, or the stream not be resumed for a minute; INTERNAL if an event is not the contract's.
            TypeError: the contract does not allow these arguments.
        """
        if not method.is_stream:
            raise TypeError(f"{method.name} is not a stream: use call()")
        if method.idempotent and idempotency_key is None:
            if after is not None:
                raise TypeError(
                    f"{method.name}: `after` needs the idempotency key of the first call"
                )
            idempotency_key = uuid.uuid4().hex
        headers = self._headers_of(method, request, on_behalf_of, idempotency_key)
        # With `text/event-stream` only, daprd 1.18 drops every response that is not 2xx.
        headers["accept"] = "text/event-stream, application/json"
        stream = ClientStream(
            self._open_streams, self._url(method), method, request.to_json(), headers
        )
        return stream.follow(after)

    async def close(self) -> None:
        """Close every connection."""
        for session in (self._calls, self._streams):
            if session is not None:
                await session.close()

    def _url(self, method: AnyMethod) -> str:
        return f"{self._base}/{method.service.app_id}/method{method.path}"

    def _headers_of(
        self,
        method: AnyMethod,
        request: Message,
        on_behalf_of: CallerIdentity | None,
        idempotency_key: str | None,
    ) -> dict[str, str]:
        if not isinstance(request, method.request):
            raise TypeError(f"{method.name} takes {method.request.__name__}")
        headers = {**self._headers, "x-call-id": uuid.uuid4().hex}
        if trace := current_traceparent():
            headers["traceparent"] = trace
        if (method.scope is None) is not (on_behalf_of is None):
            needs = "needs" if on_behalf_of is None else "takes no"
            raise TypeError(f"{method.name} {needs} on_behalf_of")
        if on_behalf_of is not None:
            headers |= identity_headers(on_behalf_of)
        if idempotency_key is not None:
            if not method.idempotent:
                raise TypeError(f"{method.name} takes no idempotency_key")
            if not IDEMPOTENCY_KEY.fullmatch(idempotency_key):
                raise TypeError(f"an idempotency_key is 1 to {MAX_KEY_LENGTH} visible characters")
            headers["idempotency-key"] = idempotency_key
        return headers

    def _open_calls(self) -> aiohttp.ClientSession:
        if self._calls is None:
            self._calls = _session(MAX_CONNECTIONS)
        return self._calls

    def _open_streams(self) -> aiohttp.ClientSession:
        """Apart from calls, which streams would keep waiting; the called apps limit their number."""
        if self._streams is None:
            self._streams = _session(limit=0)
        return self._streams


def identity_headers(caller: CallerIdentity) -> dict[str, str]:
    """The headers by which an app says for which user it calls."""
    headers = {"x-user-id": caller.user_id, "x-scopes": " ".join(sorted(caller.scopes))}
    if caller.email:
        headers["x-user-email"] = caller.email
    if caller.key_id:
        headers["x-key-id"] = caller.key_id
    return headers


def _session(limit: int) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(limit=limit, keepalive_timeout=KEEP_ALIVE_SECONDS)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
