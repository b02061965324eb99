"""Faults of the platform's processes, and the time until it answers again."""

import asyncio
import contextlib
import signal
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Final

import psutil

from services.cli.edge import CallError
from tests.support.model_server import script_text
from tests.support.platform import Client, Platform
from tests.support.retries import until_ok
from tests.support.wait import wait_until

SERVERS: Final = ("placement", "scheduler", "postgres", "valkey", "openfga")


async def kill(platform: Platform, name: str, sign: int = signal.SIGKILL) -> int:
    """Kill a process, wait until that pid has exited, and return it."""
    pid = await asyncio.to_thread(platform.stack.kill, name, sign)
    await asyncio.to_thread(platform.stack.wait_exited, name, pid)
    return pid


@contextlib.asynccontextmanager
async def killed_for(platform: Platform, name: str, seconds: float) -> AsyncIterator[None]:
    """Kill a process by SIGKILL, keep it down for so long, during the block, then start it until it is ready."""
    await asyncio.to_thread(platform.stack.kill_and_halt, name)
    began = time.monotonic()
    try:
        yield
        await asyncio.sleep(began + seconds - time.monotonic())
    finally:
        await start(platform, name)
    await until_ready(platform, name)


async def until_ready(platform: Platform, *names: str) -> None:
    """Wait until the supervisor has restarted the processes and they pass their readiness probes."""
    await asyncio.to_thread(platform.stack.wait_ready, *names)


async def halt(platform: Platform, *names: str) -> None:
    """Stop processes until they are started again."""
    await asyncio.to_thread(platform.stack.halt, *names)


async def start(platform: Platform, *names: str) -> None:
    """Start halted processes without waiting for them."""
    await asyncio.to_thread(platform.stack.supervisor.start, *names)


@contextlib.asynccontextmanager
async def halted(platform: Platform, *names: str) -> AsyncIterator[None]:
    """Stop processes during the block, then start them until they are ready."""
    await halt(platform, *names)
    try:
        yield
    finally:
        await start(platform, *names)
    await until_ready(platform, *names)


async def restart(platform: Platform, name: str, env: Mapping[str, str] | None = None) -> None:
    """Restart a process; `env` is added to its environment for this and later starts."""
    await asyncio.to_thread(platform.stack.restart, name, env=env)


async def run_replica(platform: Platform, app: str, env: Mapping[str, str]) -> None:
    """Start or restart the second replica of an app with its sidecar."""
    replica = f"{app}-2"
    if replica in platform.stack.apps:
        await start(platform, f"{replica}-daprd")
        await restart(platform, replica, env)
    else:
        await asyncio.to_thread(platform.stack.add_replica, app, 2, env=env)


@contextlib.asynccontextmanager
async def frozen(platform: Platform, name: str) -> AsyncIterator[None]:
    """Stop a process and its children by SIGSTOP during the block."""
    family = await asyncio.to_thread(platform.family, name)
    assert family, f"{name} does not run"
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


async def until_tokens_issued(platform: Platform) -> None:
    """Wait until auth issues tokens: its sidecar needs a moment to detect that the app is back."""

    def is_issued() -> bool:
        with contextlib.suppress(CallError):
            return bool(platform.token("probe"))
        return False

    await wait_until(is_issued, 30, "a token to be issued")


async def until_writable(platform: Platform) -> None:
    """Wait until the user `probe` can create a conversation and append to it."""
    await until_tokens_issued(platform)
    async with platform.client("probe") as client:
        named = (await until_ok(client, "CreateConversation"))["conversationId"]
        await until_ok(client, "AppendMessage", conversationId=named, text="ready?")


class Recovery:
    """Measures the time from a fault to the next completed turn.

    `by_workflow`: the first model call fails, so the turn needs the workflow engine.
    """

    def __init__(self, client: Client, *, by_workflow: bool = False) -> None:
        self._client = client
        self._attempts = [{"status": 500}, {}] if by_workflow else [{}]
        self._began = time.monotonic()

    async def seconds(self) -> float:
        """Seconds from construction to a completed turn."""
        created = await until_ok(self._client, "CreateConversation")
        text = f"{script_text(attempts=self._attempts)} {uuid.uuid4().hex}"
        await until_ok(
            self._client, "SendMessage", conversationId=created["conversationId"], text=text
        )
        return round(time.monotonic() - self._began, 2)
