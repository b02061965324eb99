"""The edge as the chat sees it: unary calls, and streams that survive a cut connection."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import aiohttp

from services.cli.edge import CONVERSATION, CallError
from services.kit.http.sse_decoder import SseDecoder

_ATTEMPTS: Final = 30
_LONGEST_PAUSE_SECONDS: Final = 2.0
_SILENCE_SECONDS: Final = 40.0
"""The server sends at least a comment every 15 s; longer silence means that the connection is dead."""
_RETRYABLE: Final = frozenset({0, 408, 429, 500, 502, 503, 504})


class ChatClient:
    """Calls on behalf of one user."""

    def __init__(self, edge_url: str, token: str) -> None:
        self._base = edge_url.rstrip("/") + CONVERSATION
        self._headers = {"authorization": f"Bearer {token}"}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "ChatClient":
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=_SILENCE_SECONDS)
        self._session = aiohttp.ClientSession(headers=self._headers, timeout=timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def call(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        """One unary call.

        Raises:
            CallError: any status but 2xx, or no answer.
        """
        try:
            async with self._open().post(f"{self._base}/{method}", json=body) as response:
                text = await response.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise CallError(0, f"the edge does not answer ({error or 'time is over'})") from None
        if not response.ok:
            raise CallError(response.status, text)
        return json.loads(text or "{}")

    async def ask(
        self, body: dict[str, Any], *, position: Callable[[], int], is_over: Callable[[], bool]
    ) -> AsyncIterator[dict[str, Any]]:
        """Begin a turn and yield its events until it is over, over as many connections as it takes.

        A repeat carries the same idempotency key, so the turn is begun once, and `Last-Event-ID`, so that nothing
        comes twice.
        """
        key = secrets.token_hex(16)
        fruitless = 0
        while not is_over():
            before = position()
            try:
                async for event in self._stream("stream-message", body, key, before):
                    yield event
            except CallError as error:
                if error.status not in _RETRYABLE or fruitless >= _ATTEMPTS:
                    raise
            fruitless = 0 if position() > before else fruitless + 1
            if fruitless and not is_over():
                await asyncio.sleep(min(0.1 * 2**fruitless, _LONGEST_PAUSE_SECONDS))

    async def _stream(
        self, method: str, body: dict[str, Any], key: str, after: int
    ) -> AsyncIterator[dict[str, Any]]:
        headers = {"accept": "text/event-stream", "idempotency-key": key}
        if after:
            headers["last-event-id"] = str(after)
        try:
            async with self._open().post(
                f"{self._base}/{method}", json=body, headers=headers
            ) as response:
                if not response.ok:
                    raise CallError(response.status, await response.text())
                decoder = SseDecoder()
                async for chunk in response.content.iter_any():
                    for data in decoder.feed(chunk):
                        event = json.loads(data)
                        if "error" in event:
                            lasting = event["error"].get("isTerminal", False)
                            raise CallError(404 if lasting else 503, data)
                        if "seq" not in event:
                            return  # `reconnect`: the server asks to come back now
                        yield event
        except (aiohttp.ClientError, TimeoutError) as error:
            raise CallError(0, f"the connection was cut ({error or 'silence'})") from None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("use the client in `async with`")
        return self._session
