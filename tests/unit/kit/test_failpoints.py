"""Failpoints stop or kill a process at a named step, and are nothing when unarmed."""

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


async def test_an_unarmed_point_does_nothing() -> None:
    await failpoint(NAME)


@requirement("kit:failpoints")
async def test_a_point_stops_at_its_hit_until_released(control: FailpointControl) -> None:
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


async def test_a_point_that_nobody_controls_any_more_is_passed(tmp_path: Path) -> None:
    arm(f"{NAME}:1:kill", str(tmp_path / "gone.sock"))
    await failpoint(NAME)


@pytest.mark.timeout(20)
async def test_a_process_dies_at_the_point_by_sigkill_and_its_successor_does_not(
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
async def test_a_name_that_is_nowhere_in_the_code_fails_at_start(control: FailpointControl) -> None:
    process = await reach(control, "turn.after_begn:1:stop")
    _, err = await process.communicate()
    assert process.returncode == 1
    assert b"no failpoint is called turn.after_begn" in err


@pytest.mark.parametrize(
    "text", [NAME, f"{NAME}:1", f"{NAME}:0:stop", f"{NAME}:x:stop", f"{NAME}:1:explode"]
)
def test_a_malformed_arming_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="YOCASO_FAILPOINTS"):
        arm(text, None)


def test_the_names_are_those_in_the_code() -> None:
    assert {"turn.after_begin", "turn.after_user_commit"} <= failpoints.declared()


async def test_a_point_that_is_not_reached_is_told_by_the_controller(
    control: FailpointControl,
) -> None:
    with pytest.raises(AssertionError, match="nobody came to turn"):
        await control.wait_for("turn.nowhere", timeout=0.05)
