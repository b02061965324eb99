"""Runs `yocaso` commands in tests."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Final

import aiohttp
import psutil

from services.cli.stack import Stack
from services.cli.stack.state import StateFolder
from tests.support.port_offsets import offset_of
from tests.support.wait import wait_until

ROOT: Final = Path(__file__).parents[3]
OFFSET: Final = offset_of("commands")
TEMPLATE: Final = Path(__file__).parent / "apps" / "dapr.yaml"


def is_alive(pid: int) -> bool:
    """Whether a process runs and is no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def openfga_stores(stack: Stack, token: str | None) -> int:
    """The status of a call to the OpenFGA of a stack."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    async with (
        aiohttp.ClientSession() as session,
        session.get(stack.url("openfga") + "/stores", headers=headers) as reply,
    ):
        return reply.status


class Command:
    """A `yocaso` command in its own process, on its own state folder."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.output = ""
        self._process: asyncio.subprocess.Process | None = None

    async def begin(
        self, name: str = "infra", *more: str, typed: str | None = None, **env: str
    ) -> None:
        arguments = more or ("--file", str(TEMPLATE), "--port-offset", str(OFFSET))
        self._process = await asyncio.create_subprocess_exec(
            *(
                sys.executable,
                "-m",
                "services.cli.main",
                name,
                "--state",
                str(self.state),
                *arguments,
            ),
            stdin=asyncio.subprocess.DEVNULL if typed is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "LLM_BASE_URL": "http://127.0.0.1:1/v1", **env},
            start_new_session=True,
        )
        if typed is not None:
            assert self._process.stdin is not None
            self._process.stdin.write(typed.encode())
            self._process.stdin.close()

    async def read_until(self, text: str) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        while text not in self.output:
            line = await self._process.stdout.readline()
            assert line, f"yocaso ended before it printed {text!r}:\n{self.output}"
            self.output += line.decode()

    async def ready(self, **env: str) -> None:
        await self.begin(**env)
        await self.read_until("dapr run -f")

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def press_until_ended(self, number: int, seconds: float) -> int:
        """Send a signal again and again, as an impatient person does; the exit status."""
        ending = asyncio.create_task(self.ended())

        def has_ended() -> bool:
            if not ending.done() and self.is_running:
                self.signal(number)
            return ending.done()

        await wait_until(has_ended, seconds, "the end of the command", every=0.1)
        return ending.result()

    def kill(self, name: str) -> int:
        """Send SIGKILL to a process of the stack."""
        pid = self.processes[name]
        os.kill(pid, signal.SIGKILL)
        return pid

    async def ended(self) -> int:
        assert self._process is not None
        assert self._process.stdout is not None
        self.output += (await self._process.stdout.read()).decode()
        return await self._process.wait()

    @property
    def processes(self) -> dict[str, int]:
        """Running processes of the state folder: name to pid."""
        return StateFolder(self.state).leftovers()

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None
