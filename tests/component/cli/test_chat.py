"""`yocaso chat` against a fake edge with the real wire format, which cuts its streams."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from services.cli.chat.client import ChatClient
from services.cli.chat.conversation import Chat
from services.cli.chat.main import execute_lines
from services.contracts.llm.conversations import CANCEL_TURN, LIST_MESSAGES, STREAM_MESSAGE
from tests.requirements import requirement
from tests.support.wait import wait_until

TURN = [
    ("run.started", {"turnId": "turn_1"}),
    ("text.delta", {"text": "Hel"}),
    ("text.delta", {"text": "wrong"}),
    ("attempt.restarted", {"fromSeq": 3}),
    ("text.delta", {"text": "lo"}),
    ("run.completed", {"finishReason": "stop"}),
]


@dataclass
class CuttingEdge:
    """Sends one event per connection, then cuts it or sends `reconnect`."""

    events: list[tuple[str, dict[str, Any]]] = field(default_factory=lambda: list(TURN))
    keys: list[str] = field(default_factory=list[str])
    positions: list[int] = field(default_factory=list[int])
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    hold_after: int = 0
    url: str = ""

    async def stream(self, request: web.Request) -> web.StreamResponse:
        after = int(request.headers.get("last-event-id", "0"))
        self.keys.append(request.headers["idempotency-key"])
        self.positions.append(after)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b": open\n\n")
        if self.hold_after and after >= self.hold_after:
            await self.cancelled.wait()
            await response.write(frame(after + 1, "run.cancelled", {}))
            return response
        await response.write(frame(after + 1, *self.events[after]))
        if after % 2:
            await response.write(b"event: reconnect\ndata: {}\n\n")
        elif request.transport is not None:
            await response.write(b'id: 9\nevent: text.delta\ndata: {"se')
            request.transport.close()
        return response

    async def cancel(self, request: web.Request) -> web.Response:
        assert (await request.json())["turnId"] == "turn_1"
        self.cancelled.set()
        return web.json_response({})

    async def list_messages(self, request: web.Request) -> web.Response:
        messages = [{"role": "ASSISTANT", "text": "Hi!"}, {"role": "USER", "text": "Hello"}]
        return web.json_response({"messages": messages})


def frame(seq: int, kind: str, data: dict[str, Any]) -> bytes:
    event = {"seq": str(seq), "type": kind, "attempt": 1, "data": data}
    return f"id: {seq}\nevent: {kind}\ndata: {json.dumps(event)}\n\n".encode()


@pytest.fixture
async def edge() -> AsyncIterator[CuttingEdge]:
    fake = CuttingEdge()
    app = web.Application()
    app.router.add_post(STREAM_MESSAGE.edge_path, fake.stream)
    app.router.add_post(CANCEL_TURN.edge_path, fake.cancel)
    app.router.add_post(LIST_MESSAGES.edge_path, fake.list_messages)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield fake
    await runner.cleanup()


@requirement("stack:chat")
async def test_an_answer_over_cut_connections_is_displayed_once(edge: CuttingEdge) -> None:
    shown: list[str] = []
    async with ChatClient(edge.url, "token") as client:
        chat = Chat(client, None, shown.append)
        await chat.open("conv_1")
        shown.clear()
        await chat.send("Say hello")
    assert "".join(shown) == "\nHelwrong\n[the answer restarts]\nHello\n"
    assert edge.positions == [0, 1, 2, 3, 4, 5]
    assert len(set(edge.keys)) == 1


@requirement("stack:chat")
async def test_cancel_during_an_answer_runs_at_once_and_other_lines_are_queued(
    edge: CuttingEdge,
) -> None:
    edge.hold_after = 2
    shown: list[str] = []
    lines: asyncio.Queue[str | None] = asyncio.Queue()
    async with ChatClient(edge.url, "token") as client:
        chat = Chat(client, None, shown.append)
        await chat.open("conv_1")
        shown.clear()
        execution = asyncio.create_task(execute_lines(chat, lines, shown.append))
        await lines.put("Say hello\n")
        await wait_until(lambda: edge.positions[-1:] == [2], what="the third connection")
        for line in ("/open\n", "/cancel\n", None):
            await lines.put(line)
        await execution
    assert "".join(shown).startswith("\nyou> \nHel\n[cancelled]\n/open needs a conversation id")


async def test_opening_a_conversation_displays_its_last_messages_in_order(
    edge: CuttingEdge,
) -> None:
    shown: list[str] = []
    async with ChatClient(edge.url, "token") as client:
        await Chat(client, None, shown.append).open("conv_1")
    assert "".join(shown) == "\nyou> Hello\n\nassistant> Hi!\n"


async def test_an_unreachable_edge_is_reported(edge: CuttingEdge) -> None:
    shown: list[str] = []
    async with ChatClient("http://127.0.0.1:1", "token") as client:
        assert await Chat(client, None, shown.append).execute("/list")
    assert "the edge does not answer" in "".join(shown)
