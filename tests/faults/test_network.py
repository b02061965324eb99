"""Latency, resets and half-open connections between the processes of the platform."""

import asyncio
import time
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.chaos.turns import MIDDLE, ObservedTurn, problems_of, script
from tests.faults.links import LINKS, Link
from tests.faults.load import Load
from tests.requirements import requirement
from tests.support.platform import Client, Platform
from tests.support.retries import RECOVERY_SECONDS, until_ok
from tests.support.toxiproxy import Toxiproxy
from tests.support.wait import wait_until

pytestmark = pytest.mark.long

LATENCY_MS = 300
SLOW = 10
"""Appends that slow connections must let through."""
RESET_SECONDS = 3.0
HALF_OPEN_SECONDS = 5.0
LONG_HALF_OPEN_SECONDS = 40.0
"""Longer than any time limit: calls end by their own limits, not by the end of the fault."""
IN_FLIGHT_SECONDS = 1.0
"""Within which an answer that had passed before a connection went dead may still arrive."""
FAILS_ONCE: list[dict[str, Any]] = [{"status": 500}, *script()]
"""The model fails first, so that the turn needs the workflow engine, and so the sidecars' Postgres."""
GROUPS = {
    "app-postgres": ("app-postgres",),
    "beside calls": ("app-valkey", "sidecar-postgres"),
    "edge to app": ("edge-sidecar", "sidecar-app"),
}


class NetworkFaults:
    """Faults of some links at once, under load; turns that need the engine begin in each."""

    def __init__(self, proxies: Toxiproxy, names: Sequence[str], load: Load) -> None:
        self._proxies = proxies
        self._links: list[Link] = [LINKS[name] for name in names]
        self._carries_calls = any(link.carries_calls for link in self._links)
        self._load = load

    async def be_slow(self) -> None:
        async with AsyncExitStack() as exits:
            for link in self._links:
                await exits.enter_async_context(self._proxies.latency(link.name, LATENCY_MS))
            since = time.monotonic()
            await wait_until(
                lambda: len(self._succeeded(since)) >= SLOW, 30, "appends over slow connections"
            )
            slow = self._succeeded(since)
        if self._carries_calls:
            fastest = min(each.ended - each.began for each in slow)
            assert fastest >= LATENCY_MS / 1000, "the connections were not slow"

    async def be_reset(self) -> None:
        async with AsyncExitStack() as exits:
            for link in self._links:
                await exits.enter_async_context(self._proxies.resets(link.name))
            await _pass(RESET_SECONDS)

    async def be_half_open(self, seconds: float) -> None:
        async with AsyncExitStack() as exits:
            for link in self._links:
                await exits.enter_async_context(self._proxies.half_open(link.name))
            since = time.monotonic()
            await _pass(seconds)
            passed = self._succeeded(since + IN_FLIGHT_SECONDS)
        assert bool(passed) != self._carries_calls, f"{len(passed)} appends passed"

    def _succeeded(self, since: float) -> list[Any]:
        return self._load.succeeded("AppendMessage", since, time.monotonic())


async def _pass(seconds: float) -> None:
    """Let a fault last."""
    until = time.monotonic() + seconds
    await wait_until(lambda: time.monotonic() >= until, seconds + 5)


@requirement("chaos:network", "turns:one-terminal", "events:gap-free")
@pytest.mark.parametrize("names", GROUPS.values(), ids=GROUPS)
async def test_faults_of_connections_end_without_loss_or_hang(
    platform: Platform, proxies: Toxiproxy, alice: Client, names: Sequence[str]
) -> None:
    own = [(await until_ok(alice, "CreateConversation"))["conversationId"] for _ in range(3)]
    gate = uuid.uuid4().hex
    turns = [await ObservedTurn.begin(alice, script(gate=gate, gate_after=MIDDLE))]
    await turns[0].shows(MIDDLE)
    async with Load.running(alice) as load:
        faults = NetworkFaults(proxies, names, load)
        for work in (
            faults.be_slow(),
            faults.be_reset(),
            faults.be_half_open(HALF_OPEN_SECONDS),
        ):
            turns.append(await ObservedTurn.begin(alice, FAILS_ONCE, conversation=own.pop()))
            await work
        await platform.release_gate(gate)
        async with asyncio.timeout(RECOVERY_SECONDS):
            await asyncio.gather(*(turn.ended() for turn in turns))
    assert await load.find_problems() == []
    assert await problems_of(turns) == []
    await load.stay_steady()


@requirement("chaos:network")
@pytest.mark.parametrize("name", LINKS)
async def test_calls_over_a_dead_connection_end_within_their_time_limit(
    proxies: Toxiproxy, alice: Client, name: str
) -> None:
    async with Load.running(alice) as load:
        await NetworkFaults(proxies, [name], load).be_half_open(LONG_HALF_OPEN_SECONDS)
    assert await load.find_problems() == []
    await load.stay_steady()
