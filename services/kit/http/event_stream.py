"""The HTTP response of a stream of events."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from typing_extensions import override


class EventStream(Response):
    """Sends events until they end or the client disconnects, with less memory than Starlette's `StreamingResponse`."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes], headers: Mapping[str, str]) -> None:
        super().__init__(headers=headers)
        del self.headers["content-length"]
        self._events = events

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        serving = asyncio.current_task()
        assert serving is not None
        listening = asyncio.create_task(_cancel_on_disconnect(receive, serving))
        try:
            async with aclosing(self._events) as events:
                await send(
                    {
                        "type": "http.response.start",
                        "status": self.status_code,
                        "headers": self.raw_headers,
                    }
                )
                async for event in events:
                    await send({"type": "http.response.body", "body": event, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except asyncio.CancelledError:
            if not listening.done() or serving.uncancel() > 0:  # cancelled by another cause too
                raise
        finally:
            listening.cancel()


async def _cancel_on_disconnect(receive: Receive, serving: "asyncio.Task[object]") -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    serving.cancel()
