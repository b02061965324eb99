"""A sidecar that keeps its actor types locked recovers when its app registers them again."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.chaos.actor_hosts import HOSTS, Appender, Log, begin_turn, stop_second_host
from tests.chaos.faults import frozen, kill, until_ready
from tests.requirements import requirement
from tests.support.failpoint_control import FailpointControl
from tests.support.platform import Client, Platform
from tests.support.retries import until_ok
from tests.support.wait import wait_until

USERS = 6
HOLD = "turn.after_user_commit"
DETECTED = "sidecar.actors_stuck"


@pytest.fixture
async def appender(platform: Platform) -> AsyncIterator[Appender]:
    """Calls actors through a sidecar of llm."""
    opened = Appender(platform)
    yield opened
    await opened.close()
    await stop_second_host(platform)


@requirement("chaos:hung-sidecar", "kit:locked-actor-types")
async def test_actor_types_left_locked_by_a_dead_placement_are_registered_again(
    platform: Platform, alice: Client, appender: Appender, failpoints: FailpointControl
) -> None:
    first, second = HOSTS
    failpoints.arm(f"{HOLD}:1:stop")
    held, other = [Log(await alice.conversation()) for _ in range(2)]
    holding = asyncio.create_task(
        appender.actor(first, held.conversation, "begin_turn", begin_turn(held), timeout=60)
    )
    hit = await failpoints.wait_for(HOLD)
    # A second host causes a new placement table; the first sidecar locks its actors and waits for the held call.
    joining = asyncio.create_task(asyncio.to_thread(platform.stack.add_replica, first, 2))
    await _until_locked(appender, first, other)
    async with frozen(platform, f"{first}-daprd"):
        await kill(platform, "placement")
        await until_ready(platform, "placement")
        await wait_until(lambda: _has_joined(platform), 30, "the second host to join again")
    assert hit.is_standing
    hit.release()
    await asyncio.gather(holding, joining, return_exceptions=True)
    await asyncio.gather(*(_until_back(platform, f"user-{n}") for n in range(USERS)))
    assert await until_ok(alice, "AppendMessage", conversationId=other.conversation, text="after")
    await until_ready(platform, first, second, f"{first}-daprd", f"{second}-daprd")


async def _until_locked(appender: Appender, host: str, log: Log) -> None:
    async def is_locked() -> bool:
        return not await appender.append(log, host, keyed=False, timeout=1)

    await wait_until(is_locked, 60, "the first sidecar to lock its actors", every=0.05)


def _has_joined(platform: Platform) -> bool:
    started = platform.stack.log("placement").read_text().rpartition("Starting Dapr Placement")[2]
    port = platform.stack.spec(f"{HOSTS[1]}-daprd").ports[
        f"internal gRPC of the sidecar of {HOSTS[1]}"
    ]
    return f":{port}" in started


async def _until_back(platform: Platform, user: str) -> None:
    """Call until llm detects the locked actor types, then until a call succeeds."""
    async with platform.client(user) as client:

        async def detected() -> bool:
            with contextlib.suppress(OSError):
                await client.call("CreateConversation")
            return DETECTED in platform.stack.log(HOSTS[0]).read_text()

        await wait_until(detected, 60, "the locked types to be detected", every=0.1)
        await until_ok(client, "CreateConversation")
