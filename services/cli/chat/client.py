"""Calls the edge for `yocaso chat`; a stream reconnects when its connection is cut."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import aiohttp

from services.cli.edge import CallError
from services.contracts.llm.conversations import STREAM_MESSAGE
from services.kit.contract import AnyMethod
from services.kit.http.sse_decoder import SseDecoder

_MAX_FAILURES: Final = 30
_MAX_BACKOFF_SECONDS: Final = 2.0
_READ_TIMEOUT_SECONDS: Final = 40.0
"""A stream has a heartbeat every 15 s, so the connection is dead after two without one."""
_RETRYABLE: Final = frozenset({0, 408, 429, 500, 502, 503, 504})


class ChatClient:
    """Calls the edge as one user; an async context manager."""

    def __init__(self, edge_url: str, token: str) -> None:
        self._edge_url = edge_url.rstrip("/")
        self._headers = {"authorization": f"Bearer {token}"}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "ChatClient":
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=10, sock_read=_READ_TIMEOUT_SECONDS
        )
        self._session = aiohttp.ClientSession(headers=self._headers, timeout=timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def call(self, method: AnyMethod, body: dict[str, Any]) -> dict[str, Any]:
        """Call a unary method.

        Raises:
            CallError: a status other than 2xx, or no response.
        """
        url = self._edge_url + method.edge_path
        try:
            async with self._require_session().post(url, json=body) as response:
                text = await response.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            reason = (
                f"the edge does not answer ({error or 'timeout'}): check the stack or set --url"
            )
            raise CallError(0, reason) from None
        if not response.ok:
            raise CallError(response.status, text)
        return json.loads(text or "{}")

    async def stream_turn(
        self, body: dict[str, Any], *, position: Callable[[], int], is_over: Callable[[], bool]
    ) -> AsyncIterator[dict[str, Any]]:
        """Begin a turn and yield its events until it is over, reconnecting as needed.

        A reconnect repeats the idempotency key, so that no second turn begins, and sends `Last-Event-ID`.

        Raises:
            CallError: a terminal error, or too many connections in a row without an event.
        """
        key = secrets.token_hex(16)
        failures = 0
        while not is_over():
            before = position()
            try:
                async for event in self._stream(body, key, before):
                    yield event
            except CallError as error:
                if error.status not in _RETRYABLE or failures >= _MAX_FAILURES:
                    raise
            failures = 0 if position() > before else failures + 1
            if failures and not is_over():
                await asyncio.sleep(min(0.1 * 2**failures, _MAX_BACKOFF_SECONDS))

    async def _stream(
        self, body: dict[str, Any], key: str, after: int
    ) -> AsyncIterator[dict[str, Any]]:
        headers = {"accept": "text/event-stream", "idempotency-key": key}
        if after:
            headers["last-event-id"] = str(after)
        try:
            url = self._edge_url + STREAM_MESSAGE.edge_path
            async with self._require_session().post(url, json=body, headers=headers) as response:
                if not response.ok:
                    raise CallError(response.status, await response.text())
                decoder = SseDecoder()
                async for chunk in response.content.iter_any():
                    for data in decoder.feed(chunk):
                        event = json.loads(data)
                        if "error" in event:
                            is_terminal = event["error"].get("isTerminal", False)
                            raise CallError(404 if is_terminal else 503, data)
                        if "seq" not in event:
                            return  # `reconnect`
                        yield event
        except (aiohttp.ClientError, TimeoutError) as error:
            raise CallError(0, f"the edge cut the stream ({error or 'timeout'})") from None

    def _require_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("use ChatClient in `async with`")
        return self._session
