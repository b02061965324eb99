"""An event stream ends with its source, its client or its task, and always closes its source."""

import asyncio
from collections.abc import AsyncGenerator

import pytest
from starlette.types import Message, Receive

from services.kit.http.event_stream import EventStream
from tests.support.wait import wait_until


class Client:
    """A client: what it received, and whether it disconnected."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.left = asyncio.Event()
        self.closed = False

    async def events(self, *, endless: bool) -> AsyncGenerator[bytes]:
        try:
            yield b"data: 1\n\n"
            if endless:
                await asyncio.Event().wait()
        finally:
            self.closed = True

    async def receive(self) -> Message:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    def serve(self, *, endless: bool, receive: Receive | None = None) -> "asyncio.Task[None]":
        stream = EventStream(self.events(endless=endless), {"x-a": "b"})
        return asyncio.ensure_future(stream({}, receive or self.receive, self.send))


async def standing_open() -> tuple[Client, "asyncio.Task[None]"]:
    """A stream that sent its only event and does not end."""
    client = Client()
    serving = client.serve(endless=True)
    await wait_until(lambda: len(client.sent) == 2)
    return client, serving


async def test_all_events_are_sent_and_then_the_end_of_the_body() -> None:
    client = Client()
    await client.serve(endless=False)
    start, *bodies = client.sent
    assert (start["status"], dict(start["headers"])) == (
        200,
        {b"x-a": b"b", b"content-type": b"text/event-stream; charset=utf-8"},
    )
    assert [(body["body"], body["more_body"]) for body in bodies] == [
        (b"data: 1\n\n", True),
        (b"", False),
    ]
    assert client.closed


async def test_a_disconnect_ends_the_stream_without_an_error() -> None:
    client, serving = await standing_open()
    client.left.set()
    await serving
    assert client.closed


async def test_a_cancellation_is_propagated() -> None:
    client, serving = await standing_open()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert client.closed


async def test_a_cancellation_concurrent_with_a_disconnect_is_propagated() -> None:
    client, serving = await standing_open()
    client.left.set()
    await asyncio.sleep(0)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert client.closed
