"""`yocaso up` with the committed `dapr.yaml` and a scripted model."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from services.cli.edge import StackEndpoints, post
from services.contracts.llm.conversations import LIST_CONVERSATIONS
from tests.component.cli.command import ROOT, Command
from tests.requirements import requirement
from tests.support.model_server.server import ModelServer
from tests.support.port_offsets import offset_of
from tests.support.wait import wait_until

OFFSET = offset_of("yocaso up")
MODEL_PORT = 6095 + OFFSET
MODEL = "scripted/one"


@asynccontextmanager
async def a_silent_model() -> AsyncIterator[asyncio.Event]:
    """Accepts connections without answering; the event is set at the first one."""
    connected, over = asyncio.Event(), asyncio.Event()

    async def keep_silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await over.wait()
        writer.close()

    async with await asyncio.start_server(keep_silent, "127.0.0.1", MODEL_PORT):
        yield connected
        over.set()


@pytest.mark.timeout(150)
@requirement("stack:up-ready", "stack:token", "stack:chat", "stack:restart", "stack:stop-clean")
async def test_up_is_ready_once_a_turn_is_answered_and_serves_until_a_signal(
    command: Command,
) -> None:
    where = ("--file", str(ROOT / "dapr.yaml"), "--port-offset", str(OFFSET))
    model = {
        "LLM_BASE_URL": f"http://127.0.0.1:{MODEL_PORT}/v1",
        "LLM_DEFAULT_MODEL": MODEL,
        "LLM_MODELS": MODEL,
    }
    async with a_silent_model() as connected:
        await command.begin("up", *where, "--model-seconds", "90", **model)
        ready = asyncio.create_task(command.read_until("is ready in"))
        probing = asyncio.create_task(connected.wait())
        await asyncio.wait({ready, probing}, timeout=60, return_when=asyncio.FIRST_COMPLETED)
        assert probing.done()
        assert not ready.done()
    async with ModelServer(MODEL_PORT):
        await asyncio.wait_for(ready, 90)
        await _use_token(command)
        await _chat(command)
        await _kill_auth(command)
        command.signal(signal.SIGINT)
        assert await asyncio.wait_for(command.ended(), 10) == 0
    assert command.processes == {}
    _check_console(command)


def _check_console(command: Command) -> None:
    """One line per process with its time; messages of libraries are only in files."""
    for name in ("postgres", "openfga", "auth", "auth-daprd", "llm", "edge", "first turn"):
        assert f"{name:<16} | ready in" in command.output
    chatter = ("Registering workflow", "setup plugin alembic", "gRPC worker")
    written = "".join(file.read_text() for file in (command.state / "logs").glob("*.log"))
    for text in chatter:
        assert text in written
        assert text not in command.output
    assert '{"event"' not in command.output
    assert "\x1b" not in command.output


@pytest.mark.timeout(200)
@requirement("stack:model-silent", "stack:stop-at-once", "gates:host-platform")
async def test_the_platform_stays_up_until_the_model_answers(command: Command) -> None:
    where = ("--file", str(ROOT / "dapr.yaml"), "--port-offset", str(OFFSET))
    model = {"LLM_BASE_URL": f"http://127.0.0.1:{MODEL_PORT}/v1", "LLM_DEFAULT_MODEL": MODEL}
    async with a_silent_model():
        await command.begin("up", *where, "--model-seconds", "3", **model)
        await command.read_until("Yocaso is up without a model in")
        await command.read_until("the model does not answer: no answer within 3 s")
        await command.read_until(f"at {model['LLM_BASE_URL']} (LLM_BASE_URL)")
        await _use_token(command)
    async with ModelServer(MODEL_PORT):
        await command.read_until("the model answers, after")
        await _chat(command)
        await _run_e2e_tests(command)
        await _end_at_once(command)


async def _end_at_once(command: Command) -> None:
    """Two signals; a frozen app would hold up the first for 4 s."""
    os.kill(command.processes["llm"], signal.SIGSTOP)
    command.signal(signal.SIGINT)
    await command.read_until("stopping; waiting for")
    assert "llm" in command.output.rpartition("waiting for")[2]
    assert await command.press_until_ended(signal.SIGINT, 3) == 130
    assert "killed all processes in" in command.output
    assert command.processes == {}


@pytest.mark.timeout(90)
@requirement("stack:model-silent", "stack:console")
async def test_a_model_that_cannot_be_reached_is_reported_as_json(command: Command) -> None:
    where = ("--file", str(ROOT / "dapr.yaml"), "--port-offset", str(OFFSET))
    model = {"LLM_BASE_URL": "http://127.0.0.1:1/v1", "LLM_DEFAULT_MODEL": MODEL}
    await command.begin("up", *where, "--json", "--model-seconds", "2", **model)
    await command.read_until("the platform stays up")
    lines = [json.loads(line) for line in command.output.splitlines()]
    ready = {line["process"] for line in lines if line.get("event") == "process.ready"}
    assert {"postgres", "auth", "llm-daprd", "edge"} <= ready
    own = [line["event"] for line in lines if line.get("app") == "yocaso"]
    assert any(event.startswith("the model does not answer: ") for event in own)
    assert any(event.startswith("Yocaso is up without a model") for event in own)
    command.signal(signal.SIGTERM)
    assert await asyncio.wait_for(command.ended(), 10) == 0


async def _use_token(command: Command) -> None:
    issuing = Command(command.state)
    await issuing.begin("token", "--user", "u1", "--email", "u1@example.com")
    assert await issuing.ended() == 0
    headers = {"authorization": f"Bearer {issuing.output.strip()}"}
    url = StackEndpoints.load(command.state).edge_url + LIST_CONVERSATIONS.edge_path
    assert await asyncio.to_thread(post, url, {}, headers) == {"conversations": []}


async def _run_e2e_tests(command: Command) -> None:
    """Against the running platform, whose state folder has the secrets; others are counted."""
    folder = command.state.parent / "e2e"
    folder.mkdir()
    places = {"YOCASO_STATE": str(command.state), "PYTEST_DEBUG_TEMPROOT": str(folder)}
    testing = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "--platform=host", "-p", "no:cacheprovider"),
        *("tests/e2e/test_conversations.py", "-k", "pages or by_its_owner"),
        cwd=ROOT,
        env={**os.environ, **places},
        stdout=asyncio.subprocess.PIPE,
    )
    output = (await testing.communicate())[0].decode()
    assert testing.returncode == 0, output
    assert "passed" in output
    assert "tests need a platform of their own" in output


async def _chat(command: Command) -> None:
    chatting = Command(command.state)
    await chatting.begin("chat", "--user", "u1", typed="Hello\n/list\n/nonsense\n")
    assert await chatting.ended() == 0
    assert "(2 messages)" in chatting.output
    assert "/nonsense is not a command" in chatting.output


async def _kill_auth(command: Command) -> None:
    pid = command.kill("auth")
    await command.read_until("auth             | ended (terminated by SIGKILL)")
    await command.read_until("auth             | restarting")
    await command.read_until("auth             | ready again in")
    await wait_until(lambda: command.processes.get("auth") not in (None, pid), what="another auth")
