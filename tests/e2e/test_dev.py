"""`yocaso dev APP` takes an app's place in a running stack, restarts it when its code changes, and gives it back."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from tests.requirements import requirement
from tests.support.platform import ROOT, Client, Platform
from tests.support.wait import wait_until

SOURCE = Path("services/llm/app.py")


@requirement("kit:dev")
@pytest.mark.disturbs
async def test_an_app_runs_from_a_terminal_and_restarts_when_its_code_changes(
    own_platform: Platform, alice: Client
) -> None:
    port = own_platform.stack.spec("llm").ports["app llm"]
    supervised = listener(port)
    command = (
        "-m",
        "services.cli.main",
        "dev",
        "llm",
        "--state",
        str(own_platform.stack.state.path),
    )
    terminal = await asyncio.create_subprocess_exec(
        sys.executable, *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    try:
        first = await wait_until(lambda: other(port, {supervised}), 30, "the app of the terminal")
        await own_platform.until_answering()
        os.utime(ROOT / SOURCE)  # as an editor does that saves the file
        second = await wait_until(lambda: other(port, {supervised, first}), 30, "its restart")
        await own_platform.until_answering()
        assert psutil.Process(second).parent() == psutil.Process(terminal.pid)
    finally:
        terminal.send_signal(signal.SIGINT)
        said, _ = await asyncio.wait_for(terminal.communicate(), 30)
    assert terminal.returncode == 0
    assert b"restarting: app.py changed" in said
    await wait_until(lambda: other(port, {first, second}), 30, "the app of the supervisor")
    await own_platform.until_answering()


def listener(port: int) -> int | None:
    """The pid of the process that listens on a port."""
    sockets = [each for each in psutil.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
    return next((each.pid for each in sockets if each.laddr and each.laddr[1] == port), None)


def other(port: int, known: set[int | None]) -> int | None:
    """The listener, unless it is a known one."""
    pid = listener(port)
    return None if pid in known else pid
