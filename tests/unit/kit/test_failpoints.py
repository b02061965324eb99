"""Failpoints stop or kill a process at a named step."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from services.kit import failpoints
from services.kit.failpoints import arm, failpoint
from tests.requirements import requirement
from tests.support.failpoint_control import FailpointControl

pytestmark = pytest.mark.loopback
NAME = "turn.after_begin"
REACH = f"import asyncio; from services.kit.failpoints import failpoint; asyncio.run(failpoint('{NAME}')); print('passed')"


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    arm("", None)


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[FailpointControl]:
    async with FailpointControl(tmp_path / "fp.sock") as running:
        yield running


async def reach(control: FailpointControl, *points: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        REACH,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "APP_ID": "llm", **control.environment(*points)},
    )


async def test_an_unarmed_failpoint_does_nothing() -> None:
    await failpoint(NAME)


@requirement("kit:failpoints")
async def test_a_failpoint_stops_at_its_hit_until_released(control: FailpointControl) -> None:
    arm(f"{NAME}:2:stop", control.environment()["YOCASO_FAILPOINT_SOCKET"])
    await failpoint(NAME)
    assert not control.has_hit(NAME)
    stopped = asyncio.create_task(failpoint(NAME))
    hit = await control.wait_for(NAME, timeout=1)
    assert (hit.name, hit.hit, hit.pid) == (NAME, 2, os.getpid())
    assert not stopped.done()
    await hit.release()
    await stopped
    await failpoint(NAME)
    assert len(control.hits) == 1


async def test_a_failpoint_without_a_controller_does_not_stop(tmp_path: Path) -> None:
    arm(f"{NAME}:1:kill", str(tmp_path / "gone.sock"))
    await failpoint(NAME)


@pytest.mark.timeout(20)
async def test_a_failpoint_kills_the_process_but_not_its_successor(
    control: FailpointControl,
) -> None:
    first = await reach(control, f"{NAME}:1:kill")
    out, _ = await first.communicate()
    assert (first.returncode, out) == (-signal.SIGKILL, b"")
    second = await reach(control, f"{NAME}:1:kill")
    out, _ = await second.communicate()
    assert (second.returncode, out) == (0, b"passed\n")
    assert [(each.name, each.app) for each in control.hits] == [(NAME, "llm")] * 2


@pytest.mark.timeout(20)
async def test_an_unknown_failpoint_fails_at_start(control: FailpointControl) -> None:
    process = await reach(control, "turn.after_begn:1:stop")
    _, err = await process.communicate()
    assert process.returncode == 1
    assert b"unknown failpoint turn.after_begn" in err


@pytest.mark.parametrize(
    "text", [NAME, f"{NAME}:1", f"{NAME}:0:stop", f"{NAME}:x:stop", f"{NAME}:1:explode"]
)
def test_a_malformed_arming_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="YOCASO_FAILPOINTS"):
        arm(text, None)


def test_declared_finds_the_failpoints_of_the_code() -> None:
    assert {"turn.after_begin", "turn.after_user_commit"} <= failpoints.declared()


async def test_the_controller_reports_a_failpoint_that_is_not_reached(
    control: FailpointControl,
) -> None:
    with pytest.raises(AssertionError, match=r"no hit of turn\.nowhere"):
        await control.wait_for("turn.nowhere", timeout=0.05)
