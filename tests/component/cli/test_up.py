"""`yocaso up` on the committed `dapr.yaml`: every app, sidecar and server, and a scripted model."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from services.cli.edge import CONVERSATION, Running, post
from tests.component.cli.command import ROOT, Command
from tests.requirements import requirement
from tests.support.model_server.server import ModelServer
from tests.support.wait import wait_until

OFFSET = 7850
MODEL_PORT = 6095 + OFFSET
MODEL = "scripted/one"


@asynccontextmanager
async def a_model_that_never_answers() -> AsyncIterator[asyncio.Event]:
    """Accepts connections and keeps silent; the event says that one has come."""
    asked, over = asyncio.Event(), asyncio.Event()

    async def keep_silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await over.wait()
        writer.close()

    async with await asyncio.start_server(keep_silent, "127.0.0.1", MODEL_PORT):
        yield asked
        over.set()


@pytest.mark.timeout(150)
@requirement("stack:up-ready", "stack:token", "stack:chat", "stack:restart", "stack:stop-clean")
async def test_up_is_ready_when_a_turn_is_answered_and_then_serves_until_it_is_told_to_stop(
    command: Command,
) -> None:
    where = ("--file", str(ROOT / "dapr.yaml"), "--port-offset", str(OFFSET))
    model = {
        "LLM_BASE_URL": f"http://127.0.0.1:{MODEL_PORT}/v1",
        "LLM_DEFAULT_MODEL": MODEL,
        "LLM_MODELS": MODEL,
    }
    async with a_model_that_never_answers() as asked:
        await command.begin("up", *where, **model)
        ready = asyncio.create_task(command.read_until("is ready in"))
        probing = asyncio.create_task(asked.wait())
        await asyncio.wait({ready, probing}, timeout=60, return_when=asyncio.FIRST_COMPLETED)
        assert probing.done()
        assert not ready.done()
    async with ModelServer(MODEL_PORT):
        await asyncio.wait_for(ready, 90)
        await _a_token_opens_the_edge(command)
        await _a_chat_gets_an_answer(command)
        await _a_death_is_said(command)
        command.signal(signal.SIGINT)
        assert await asyncio.wait_for(command.ended(), 10) == 0
    assert command.living == {}


async def _a_token_opens_the_edge(command: Command) -> None:
    issuing = Command(command.state)
    await issuing.begin("token", "--user", "u1", "--email", "u1@example.com")
    assert await issuing.ended() == 0
    headers = {"authorization": f"Bearer {issuing.output.strip()}"}
    url = f"{Running.load(command.state).edge_url}{CONVERSATION}/list-conversations"
    assert await asyncio.to_thread(post, url, {}, headers) == {"conversations": []}


async def _a_chat_gets_an_answer(command: Command) -> None:
    chatting = Command(command.state)
    await chatting.begin("chat", "--user", "u1", typed="Hello\n/list\n/nonsense\n")
    assert await chatting.ended() == 0
    assert "(2 messages)" in chatting.output
    assert "/nonsense is not known" in chatting.output


async def _a_death_is_said(command: Command) -> None:
    pid = command.kill("auth")
    await command.read_until("auth ended (terminated by SIGKILL)")
    await command.read_until("auth was started again")
    await wait_until(lambda: command.living.get("auth") not in (None, pid), what="another auth")
