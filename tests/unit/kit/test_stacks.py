"""A process that hangs prints its stacks when asked, and only if a variable allows it."""

import os
import signal
import subprocess
import sys

import pytest

from services.kit.failpoints import SOCKET_VARIABLE
from services.kit.telemetry.stacks import STACKS_VARIABLE

pytestmark = [pytest.mark.loopback, pytest.mark.timeout(30)]
HANGS = """
import asyncio, sys, uvloop
from services.kit.telemetry.stacks import print_stacks_on_signal

async def waits_for_nobody():
    await asyncio.Event().wait()

async def main():
    waiting = asyncio.create_task(waits_for_nobody())
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    waiting.cancel()

print_stacks_on_signal()
with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main())
"""


def _hanging(env: dict[str, str]) -> "subprocess.Popen[str]":
    own = {k: v for k, v in os.environ.items() if k not in (STACKS_VARIABLE, SOCKET_VARIABLE)}
    process = subprocess.Popen(
        (sys.executable, "-c", HANGS),
        env=own | env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_stacks_of_threads_and_tasks_are_printed() -> None:
    with _hanging({STACKS_VARIABLE: "1"}) as process:
        process.send_signal(signal.SIGUSR1)
        assert process.stderr is not None
        seen = ""
        while "waits_for_nobody" not in seen:  # bounded by the test's timeout
            seen += process.stderr.readline()
        process.communicate("go on\n")
    assert "thread 0x" in seen.lower()  # "Current thread" or "Thread"
    assert process.returncode == 0


def test_without_a_variable_the_signal_has_its_default() -> None:
    with _hanging({}) as process:
        process.send_signal(signal.SIGUSR1)
        assert process.wait(10) == -signal.SIGUSR1
