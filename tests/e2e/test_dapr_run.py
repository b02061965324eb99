"""The real `dapr run -f dapr.yaml` beside `yocaso infra`."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import aiohttp
import psutil
import pytest

from services.cli.edge import CallError, StackEndpoints
from services.cli.stack.environment import COMMON
from services.cli.stack.template import AppEntry, read_template
from services.cli.tokens import issue_token
from services.contracts.apps import EDGE
from tests.component.cli.command import Command, is_alive
from tests.e2e.actions import live_turn, messages, prompt
from tests.requirements import requirement
from tests.support.dapr_command import find_dapr, unpacked
from tests.support.model_server import ModelServer
from tests.support.platform import ROOT, Client
from tests.support.port_offsets import offset_of
from tests.support.run_templates import FAULTS, TEMPLATE, Fault, write_template
from tests.support.wait import wait_until

OFFSET: Final = offset_of("dapr run")
MODEL_PORT: Final = 6095 + OFFSET
MODEL: Final = {
    "LLM_BASE_URL": f"http://127.0.0.1:{MODEL_PORT}/v1",
    "LLM_DEFAULT_MODEL": "scripted/one",
    "LLM_MODELS": "scripted/one",
}
"""Set for `yocaso infra`; its `env` file carries them to the apps."""
LINKED: Final = ("components", "services", "workflows")
"""What the apps and sidecars of a checkout read."""


@pytest.fixture(scope="session")
def dapr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command; this file is collected only where it was found."""
    found = find_dapr()
    assert found is not None
    return unpacked(found, tmp_path_factory.mktemp("dapr"))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the committed `dapr.yaml`, in which only the port numbers are others."""
    for name in LINKED:
        (tmp_path / name).symlink_to(ROOT / name)
    committed = (ROOT / "dapr.yaml").read_text()
    port = re.compile(r"(Port: |127\.0\.0\.1:)(\d+)")
    shifted = port.sub(lambda found: f"{found[1]}{int(found[2]) + OFFSET}", committed)
    (tmp_path / "dapr.yaml").write_text(shifted)
    return tmp_path


@pytest.fixture
async def infra(checkout: Path) -> AsyncIterator[Command]:
    """`yocaso infra`, whose servers have the ports of the checkout's file."""
    command = Command(checkout / ".yocaso")
    where = ("--file", str(checkout / "dapr.yaml"), "--port-offset", str(OFFSET))
    await command.begin("infra", *where, **MODEL)
    yield command
    if command.is_running:
        command.signal(signal.SIGINT)
        assert await asyncio.wait_for(command.ended(), 15) == 0
    assert command.processes == {}


@asynccontextmanager
async def run_command(
    dapr: Path, checkout: Path, home: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    """`dapr run`, as `yocaso infra` says to type it, in a home without a Dapr installation."""
    script = f'. {checkout}/.yocaso/env && exec "{dapr}" run -f {checkout}/dapr.yaml'
    with (home / "output").open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *("sh", "-c", script),
            cwd=home,
            env={**os.environ, "HOME": str(home)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        for each in family(process) if process.returncode is None else ():
            each.kill()
        await process.wait()


def family(process: asyncio.subprocess.Process) -> list[psutil.Process]:
    """The command and every process below it."""
    command = psutil.Process(process.pid)
    return [command, *command.children(recursive=True)]


@requirement("stack:dapr-run")
@pytest.mark.timeout(240)
async def test_every_app_starts_a_turn_streams_and_ctrl_c_ends_all_twice(
    dapr: Path, checkout: Path, infra: Command, tmp_path_factory: pytest.TempPathFactory
) -> None:
    entries = {app.app_id: app for app in read_template(checkout / "dapr.yaml").apps}
    await infra.read_until(f"\n  dapr run -f {checkout / 'dapr.yaml'}\n")
    home = tmp_path_factory.mktemp("home")
    async with ModelServer(MODEL_PORT) as model:
        for count in (1, 2):  # the second start finds the registrations of killed sidecars
            async with run_command(dapr, checkout, home) as process:
                async with a_client(checkout, entries) as client:
                    await until_answering(client, process, home)
                    await stream_a_turn(client, model, count)
                started = family(process)
                assert sidecars_of(started) == set(entries)
                assert len(started) == 1 + 2 * len(entries)
                assert {address for each in started for address in listening(each)} == {"127.0.0.1"}
                process.send_signal(signal.SIGINT)
                assert await asyncio.wait_for(process.wait(), 40) == 0, log_of(home)
                assert [each for each in started if is_alive(each.pid)] == []
    assert {"postgres", "placement", "scheduler"} <= set(infra.processes)


@asynccontextmanager
async def a_client(checkout: Path, entries: dict[str, AppEntry]) -> AsyncIterator[Client]:
    """A client whose token is issued at its first call: the issuer is one of the apps."""
    edge, auth = (
        f"http://127.0.0.1:{port}"
        for port in (entries[EDGE.id].app_port, entries["auth"].dapr_http_port)
    )
    endpoints = StackEndpoints(edge, {"auth": auth}, COMMON)

    def issue() -> str | None:
        with suppress(CallError):
            return issue_token(checkout / ".yocaso", "ada", "ada@example.com", endpoints=endpoints)
        return None

    token = await wait_until(lambda: asyncio.to_thread(issue), 60, "a token of auth", every=0.2)
    async with aiohttp.ClientSession() as session:
        yield Client(edge, token, session)


async def until_answering(client: Client, process: asyncio.subprocess.Process, home: Path) -> None:
    """Wait until a conversation can be created; the command must go on running."""

    async def answers() -> bool:
        assert process.returncode is None, log_of(home)
        try:
            return (await client.call("CreateConversation")).status == 200
        except aiohttp.ClientError:
            return False

    await wait_until(answers, 60, "the edge to answer", every=0.2)


async def stream_a_turn(client: Client, model: ModelServer, count: int) -> None:
    """The first token arrives while the model still holds the last."""
    conversation = await client.conversation()
    gate = f"dapr-run-{count}"
    said = prompt(tokens=6, gate=gate, gate_after=3)
    async with live_turn(client, conversation, said, until_text=True) as turn:
        assert turn.stream.fold.terminal is None
        model.gates.release(gate)
        fold = await turn.rest()
    assert fold.text == "".join(f"token{number} " for number in range(6))
    assert fold.terminal == "run.completed"
    assert len(await messages(client, conversation)) == 2


def sidecars_of(processes: list[psutil.Process]) -> set[str]:
    """App-ids of the sidecars among the processes."""
    lines = [each.cmdline() for each in processes if each.name() == "daprd"]
    return {line[line.index("--app-id") + 1] for line in lines}


def listening(process: psutil.Process) -> set[str]:
    """Addresses on which a process listens."""
    sockets = process.net_connections("tcp")
    return {each.laddr[0] for each in sockets if each.laddr and each.status == psutil.CONN_LISTEN}


def log_of(home: Path) -> str:
    """The end of what `dapr run` printed."""
    return (home / "output").read_text(errors="replace")[-4000:]


@requirement("stack:run-template")
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_the_command_refuses_what_yocaso_refuses(
    dapr: Path, fault: Fault, tmp_path: Path
) -> None:
    """It refuses before it starts a process: there is no daprd in this runtime path."""
    path = write_template(tmp_path, TEMPLATE.replace(fault.old, fault.new))
    assert "daprd" not in await refusal(dapr, path)


@requirement("stack:run-template")
async def test_the_command_accepts_the_template_without_a_fault(dapr: Path, tmp_path: Path) -> None:
    assert "/.dapr/bin/daprd: no such file" in await refusal(dapr, write_template(tmp_path))


async def refusal(dapr: Path, path: Path) -> str:
    """What the command prints before it ends with an error."""
    process = await asyncio.create_subprocess_exec(
        *(dapr, "run", "-f", path),
        env={**os.environ, "DAPR_RUNTIME_PATH": str(path.parent / "none")},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed, _ = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 1
    return printed.decode()
