"""SIGSTOP for longer than daprd and placement wait for one another, and than a host's lease lasts."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import pytest

from tests.chaos.faults import frozen, halt, until_ready
from tests.chaos.replicas import FIRST, SECOND, ReplicaClient, client_of, start_second
from tests.chaos.turns import MIDDLE, ObservedTurn, next_turn_works, problems_of, script_held_once
from tests.faults.load import Load
from tests.requirements import requirement
from tests.support.platform import Client, Platform
from tests.support.retries import RECOVERY_SECONDS, until_ok
from tests.support.wait import wait_until

pytestmark = pytest.mark.long

FROZEN_SECONDS: Final = 40.0
"""daprd waits 30 s for a new table, placement 8 s for its hosts; a host's lease lasts 15 s."""
SIDECAR: Final = f"{FIRST}-daprd"


@pytest.fixture
async def replicas(
    platform: Platform, alice: Client
) -> AsyncIterator[tuple[ReplicaClient, ReplicaClient]]:
    """Clients of both hosts of llm, as the same user."""
    del alice  # requested because its fixture waits for the platform
    await start_second(platform)
    user = f"user-{uuid.uuid4().hex[:8]}"
    async with AsyncExitStack() as exits:
        clients = [
            await exits.enter_async_context(client_of(platform, name, user))
            for name in (FIRST, SECOND)
        ]
        for client in clients:
            await until_ok(client, "CreateConversation")
        yield clients[0], clients[1]
    await halt(platform, SECOND, f"{SECOND}-daprd")


@requirement("chaos:zombie", "turns:fenced", "turns:one-terminal", "turns:attempt-restarted")
async def test_a_host_that_wakes_after_40_s_writes_nothing_into_the_turn_that_another_took_over(
    platform: Platform, replicas: tuple[ReplicaClient, ReplicaClient]
) -> None:
    ours, other = replicas
    gate = uuid.uuid4().hex
    turn = await ObservedTurn.begin(ours, script_held_once(gate))
    await turn.shows(MIDDLE)
    reader = other.reader("StreamEvents", turn.ref)
    following = asyncio.create_task(reader.run(timeout=FROZEN_SECONDS + RECOVERY_SECONDS))
    async with _frozen(platform, FIRST, SIDECAR):
        taken_over = await following
        # The rest of the first answer: the frozen host reads it when it wakes.
        await platform.release_gate(gate)
    async with asyncio.timeout(RECOVERY_SECONDS):
        assert (await turn.ended()).raw == taken_over.raw
    await until_ready(platform, FIRST, SIDECAR)
    assert taken_over.restarts == 1
    assert await turn.model_calls(platform) == 2
    assert await turn.problems() == []
    await next_turn_works(turn)


@requirement("chaos:zombie", "turns:one-terminal", "events:gap-free")
@pytest.mark.parametrize(
    "names",
    [
        (FIRST,),
        (SIDECAR,),
        ("placement",),
        ("scheduler",),
        ("workflows-daprd", "placement"),
        (FIRST, SIDECAR, "placement"),
    ],
    ids=" ".join,
)
async def test_processes_frozen_for_40_s_lose_and_double_nothing(
    platform: Platform, alice: Client, names: tuple[str, ...]
) -> None:
    gate = uuid.uuid4().hex
    turn = await ObservedTurn.begin(alice, script_held_once(gate))
    await turn.shows(MIDDLE)
    async with Load.running(alice) as load:
        async with _frozen(platform, *names):
            await platform.release_gate(gate)
        await until_ready(platform, *names)
        async with asyncio.timeout(RECOVERY_SECONDS):
            await turn.ended()
    assert await load.find_problems() == []
    assert await problems_of([turn]) == []
    await load.stay_steady()


@asynccontextmanager
async def _frozen(platform: Platform, *names: str) -> AsyncIterator[None]:
    """Freeze processes during the block, and for `FROZEN_SECONDS` at least."""
    async with AsyncExitStack() as exits:
        for name in names:
            await exits.enter_async_context(frozen(platform, name))
        until = time.monotonic() + FROZEN_SECONDS
        yield
        await wait_until(lambda: time.monotonic() >= until, FROZEN_SECONDS + 5, every=0.2)
