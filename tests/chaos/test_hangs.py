"""A sidecar that passes no calls on any more is brought back by the app beside it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.chaos.faults import frozen, kill, restart, running, until_begun
from tests.chaos.owners import HOSTS, Appender, Log, begin_turn, one_host
from tests.requirements import requirement
from tests.support.failpoint_control import FailpointControl
from tests.support.patience import until_ok
from tests.support.platform import Client, Platform
from tests.support.wait import wait_until

USERS = 6
HOLD = "turn.after_user_commit"


@pytest.fixture
async def appender(platform: Platform) -> AsyncIterator[Appender]:
    """Calls actors beside the sidecar."""
    opened = Appender(platform)
    yield opened
    await opened.close()
    await one_host(platform)


@requirement("chaos:hung-sidecar", "kit:hangs")
async def test_a_sidecar_that_placement_left_locked_is_brought_back(
    platform: Platform, alice: Client, appender: Appender, socket: Path
) -> None:
    first, second = HOSTS
    async with FailpointControl(socket) as control:
        await restart(platform, first, control.environment(f"{HOLD}:1:stop"))
        await until_begun(platform)
        held, other = [Log(await alice.conversation()) for _ in range(2)]
        holding = asyncio.create_task(
            appender.actor(first, held.conversation, "begin_turn", begin_turn(held), patience=60)
        )
        hit = await control.wait_for(HOLD)
        # A second host brings a new table; the first sidecar locks its actors and waits for the call that is held.
        joining = asyncio.create_task(asyncio.to_thread(platform.stack.add_replica, first, 2))
        await _until_locked(appender, first, other)
        async with frozen(platform, f"{first}-daprd"):
            await kill(platform, "placement")
            await running(platform, "placement")
            await wait_until(lambda: _has_joined(platform), 30, "the second host to join again")
        await hit.release()
        await asyncio.gather(holding, joining, return_exceptions=True)
    await asyncio.gather(*(_until_back(platform, f"user-{n}") for n in range(USERS)))
    assert await until_ok(alice, "AppendMessage", conversationId=other.conversation, text="on")
    await running(platform, first, second, f"{first}-daprd", f"{second}-daprd")


async def _until_locked(appender: Appender, host: str, log: Log) -> None:
    async def is_locked() -> bool:
        return not await appender.append(log, host, keyed=False, patience=1)

    await wait_until(is_locked, 60, "the first sidecar to lock its actors", every=0.05)


def _has_joined(platform: Platform) -> bool:
    started = platform.stack.log("placement").read_text().rpartition("Starting Dapr Placement")[2]
    port = platform.stack.spec(f"{HOSTS[1]}-daprd").ports[
        f"internal gRPC of the sidecar of {HOSTS[1]}"
    ]
    return f":{port}" in started


def _noticed(platform: Platform) -> bool:
    return "sidecar.hangs" in platform.stack.log(HOSTS[0]).read_text()


async def _until_back(platform: Platform, user: str) -> None:
    """Call on until the hang was noticed, and then until a call is answered."""
    async with platform.client(user) as client:

        async def noticed() -> bool:
            with contextlib.suppress(OSError):
                await client.call("CreateConversation")
            return _noticed(platform)

        await wait_until(noticed, 60, "the hang to be noticed", every=0.1)
        await until_ok(client, "CreateConversation")
