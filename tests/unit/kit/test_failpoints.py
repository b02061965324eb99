"""Failpoints stop or kill a process at a named step, armed over a socket while it runs."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.kit.failpoints import SOCKET_VARIABLE, arm, attach, failpoint
from tests.requirements import requirement
from tests.support.failpoint_control import FailpointControl, declared
from tests.support.wait import wait_until

pytestmark = [pytest.mark.loopback, pytest.mark.timeout(30)]
NAME, OTHER = "turn.after_begin", "turn.before_begin"
REACH = """
import asyncio, sys
from services.kit.failpoints import failpoint
for line in sys.stdin:
    asyncio.run(failpoint(line.strip()))
    print("passed", flush=True)
"""
OPENED = """
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(event) if event.startswith("socket.") else None)
import threading
from services.kit import failpoints
print(opened, threading.active_count())
"""


class Process:
    """A process that reaches the failpoints that it is told."""

    def __init__(self, env: dict[str, str]) -> None:
        self.program = subprocess.Popen(
            (sys.executable, "-c", REACH),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "APP_ID": "llm", **env},
            text=True,
        )

    def reach(self, name: str) -> None:
        assert self.program.stdin
        self.program.stdin.write(name + "\n")
        self.program.stdin.flush()

    def passes(self) -> bool:
        """Block until it passed the failpoint; False if it died there."""
        assert self.program.stdout
        return self.program.stdout.readline() == "passed\n"

    def end(self) -> int:
        with self.program:
            assert self.program.stdin
            self.program.stdin.close()
            return self.program.wait(10)


@pytest.fixture
def control(tmp_path: Path) -> Iterator[FailpointControl]:
    with FailpointControl(tmp_path / "fp") as running:
        yield running


@pytest.fixture
def process(control: FailpointControl) -> Iterator[Process]:
    started = Process(control.environment)
    started.reach(OTHER)
    assert started.passes()
    yield started
    control.disarm()
    started.end()


async def test_an_unarmed_failpoint_does_nothing() -> None:
    await failpoint(NAME)


@requirement("kit:failpoints")
def test_without_the_variable_nothing_is_opened() -> None:
    env = {name: value for name, value in os.environ.items() if name != SOCKET_VARIABLE}
    found = subprocess.run(
        (sys.executable, "-c", OPENED), env=env, check=True, capture_output=True, text=True
    )
    assert found.stdout == "[] 1\n"


@requirement("kit:failpoints")
async def test_a_running_process_is_armed_and_stops_until_released(
    control: FailpointControl, process: Process
) -> None:
    control.arm(f"{NAME}:2:stop")
    process.reach(NAME)
    assert process.passes()
    assert not control.has_hit(NAME)
    process.reach(NAME)
    hit = await control.wait_for(NAME)
    assert (hit.name, hit.hit, hit.app, hit.pid) == (NAME, 2, "llm", process.program.pid)
    assert hit.is_standing
    hit.release()
    assert process.passes()
    assert not hit.is_standing
    process.reach(NAME)
    assert process.passes()
    assert len(control.hits) == 1


@requirement("kit:failpoints")
async def test_hits_count_anew_from_each_arming_until_disarmed(
    control: FailpointControl, process: Process
) -> None:
    for _ in range(2):
        control.arm(f"{NAME}:1:stop")
        process.reach(NAME)
        assert (await control.wait_for(NAME)).is_standing
        control.disarm()
        assert process.passes()
    process.reach(NAME)
    assert process.passes()
    assert control.hits == []


def test_only_the_processes_of_an_app_are_armed(
    control: FailpointControl, process: Process
) -> None:
    control.arm(f"{NAME}:1:kill", app="auth")
    process.reach(NAME)
    assert process.passes()


async def test_a_failpoint_kills_the_process_but_not_its_successor(
    control: FailpointControl, process: Process
) -> None:
    control.arm(f"{NAME}:1:kill")
    process.reach(NAME)
    assert not process.passes()
    assert process.end() == -signal.SIGKILL
    successor = Process(control.environment)
    successor.reach(NAME)
    assert successor.passes()
    assert successor.end() == 0
    assert [(each.name, each.app) for each in control.hits] == [(NAME, "llm")] * 2


async def test_a_process_that_starts_later_is_armed_before_it_hits_anything(
    tmp_path: Path,
) -> None:
    with FailpointControl(tmp_path / "later", f"{NAME}:1:kill") as control:
        process = Process(control.environment)
        process.reach(NAME)
        assert not process.passes()
        assert process.end() == -signal.SIGKILL


async def test_a_hit_whose_process_died_is_not_standing(
    control: FailpointControl, process: Process
) -> None:
    control.arm(f"{NAME}:1:stop")
    process.reach(NAME)
    hit = await control.wait_for(NAME)
    process.program.kill()
    await wait_until(lambda: not hit.is_standing, what="the end of the process")
    hit.release()


async def test_a_process_whose_controller_has_gone_passes(tmp_path: Path) -> None:
    with FailpointControl(tmp_path / "gone", f"{NAME}:1:stop") as control:
        process = Process(control.environment)
        process.reach(NAME)
        await control.wait_for(NAME)
    assert process.passes()
    process.reach(NAME)
    assert process.passes()
    assert process.end() == 0


def test_a_process_without_a_controller_starts_unarmed(tmp_path: Path) -> None:
    process = Process({SOCKET_VARIABLE: str(tmp_path / "nobody")})
    process.reach(NAME)
    assert process.passes()
    assert process.end() == 0


def test_a_process_refuses_a_bad_command(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(tmp_path / "bad"))
        server.listen()
        process = Process({SOCKET_VARIABLE: str(tmp_path / "bad")})
        connection, _ = server.accept()
        with connection, connection.makefile("rw") as lines:
            assert '"app": "llm"' in lines.readline()
            replies: list[str] = []
            for line in ("explode", f"arm {NAME}:0:stop", "disarm"):
                lines.write(line + "\n")
                lines.flush()
                replies.append(lines.readline().strip())
            assert replies == [
                "error: no such command: explode",
                f"error: '{NAME}:0:stop' is not name:hit:stop or name:hit:kill",
                "ok",
            ]
    assert process.end() == 0


def test_an_unknown_failpoint_is_refused(control: FailpointControl) -> None:
    with pytest.raises(ValueError, match=r"unknown failpoint turn\.after_begn"):
        control.arm("turn.after_begn:1:stop")


@pytest.mark.parametrize(
    "text", [NAME, f"{NAME}:1", f"{NAME}:0:stop", f"{NAME}:x:stop", f"{NAME}:1:explode"]
)
def test_a_malformed_arming_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not name:hit"):
        arm(text)


def test_an_app_declares_its_failpoints_where_it_calls_them() -> None:
    assert NAME in declared("services/llm")
    assert NAME not in declared("services/auth")
    assert declared("services/llm") < declared()


async def test_the_controller_reports_a_failpoint_that_is_not_reached(
    control: FailpointControl,
) -> None:
    with pytest.raises(AssertionError, match=r"no hit of turn\.before_model"):
        await control.wait_for("turn.before_model", timeout=0.05)


def test_attaching_to_a_dead_socket_opens_nothing(tmp_path: Path) -> None:
    attach(str(tmp_path / "dead"))
    asyncio.run(failpoint(NAME))
