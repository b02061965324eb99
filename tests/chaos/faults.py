"""Kills with a proof that they hit, and the time until the platform answers again."""

import asyncio
import contextlib
import signal
import time
import uuid
from collections.abc import AsyncIterator, Mapping

import psutil

from services.cli.edge import CallError
from tests.support.model_server import script_text
from tests.support.patience import until_ok
from tests.support.platform import Client, Platform
from tests.support.wait import wait_until


async def kill(platform: Platform, name: str, sign: int = signal.SIGKILL) -> int:
    """Kill a process and wait until that very process is no more."""
    pid = await asyncio.to_thread(platform.stack.kill, name, sign)
    await asyncio.to_thread(platform.stack.wait_gone, name, pid)
    return pid


async def running(platform: Platform, *names: str) -> None:
    """Wait until processes answer again; the supervisor has restarted what died."""
    for name in names:
        await asyncio.to_thread(platform.stack.wait_running, name)


@contextlib.asynccontextmanager
async def frozen(platform: Platform, name: str) -> AsyncIterator[None]:
    """A process and its children stand still during the block."""
    pid = await asyncio.to_thread(platform.stack.process, name)
    assert pid is not None, f"{name} does not run"
    process = psutil.Process(pid)
    family = [process, *process.children(recursive=True)]
    for each in family:
        _send(each, signal.SIGSTOP)
    try:
        yield
    finally:
        for each in family:
            _send(each, signal.SIGCONT)


def _send(process: psutil.Process, sign: signal.Signals) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(sign)


async def restart(platform: Platform, name: str, env: Mapping[str, str] | None = None) -> None:
    """Restart a process in order, from now on with more environment if given."""
    await asyncio.to_thread(platform.stack.restart, name, env=env)


async def until_issuing(platform: Platform) -> None:
    """Wait until tokens are issued: a sidecar takes a moment to see that its app is back."""

    def is_issuing() -> bool:
        with contextlib.suppress(CallError):
            return bool(platform.token("probe"))
        return False

    await wait_until(is_issuing, 30, "a token to be issued")


async def until_begun(platform: Platform, conversation: str | None = None) -> str:
    """Wait until a conversation of a probe's can be written; its id.

    No turn is begun, so failpoints of turns stay armed; those of creation do where the conversation is given: how
    often a probe has to try before it has created one is nothing to count hits by.
    """
    await until_issuing(platform)
    async with platform.client("probe") as client:
        named = conversation or (await until_ok(client, "CreateConversation"))["conversationId"]
        await until_ok(client, "AppendMessage", conversationId=named, text="ready?")
    return named


class Recovery:
    """Asks for a whole turn from a fault on, until one is answered.

    `by_workflow`: the model fails at first, so that the turn needs the workflow, and what the workflow needs.
    """

    def __init__(self, client: Client, *, by_workflow: bool = False) -> None:
        self._client = client
        self._tries = [{"status": 500}, {}] if by_workflow else [{}]
        self._began = time.monotonic()

    async def seconds(self) -> float:
        """Fault to first turn answered."""
        created = await until_ok(self._client, "CreateConversation")
        text = f"{script_text(attempts=self._tries)} {uuid.uuid4().hex}"
        await until_ok(
            self._client, "SendMessage", conversationId=created["conversationId"], text=text
        )
        return round(time.monotonic() - self._began, 2)
