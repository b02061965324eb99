"""Two replicas of llm: each streams, cancels and takes over the turns of the other."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from tests.chaos.faults import Recovery, halt, kill, until_ready, until_writable
from tests.chaos.replicas import (
    FIRST,
    SECOND,
    ReplicaClient,
    client_of,
    start_second,
)
from tests.chaos.turns import MIDDLE, ObservedTurn, problems_of, script_held_once
from tests.requirements import requirement
from tests.support.platform import Client, Platform
from tests.support.retries import until_ok
from tests.support.sse import Fold, StreamClient
from tests.support.wait import wait_until

ORPHANS = 12


@pytest.fixture(scope="module")
async def second_replica(platform: Platform) -> AsyncIterator[None]:
    """Runs a second replica during the tests of this module."""
    await until_writable(platform)
    await start_second(platform)
    yield
    await halt(platform, SECOND, f"{SECOND}-daprd")


@pytest.fixture
async def replicas(
    platform: Platform, second_replica: None
) -> AsyncIterator[tuple[ReplicaClient, ReplicaClient]]:
    """Clients of both replicas, as the same user."""
    del second_replica
    user = f"user-{uuid.uuid4().hex[:8]}"
    async with AsyncExitStack() as exits:
        clients = [
            await exits.enter_async_context(client_of(platform, name, user))
            for name in (FIRST, SECOND)
        ]
        for client in clients:
            await Recovery(client).seconds()
        yield clients[0], clients[1]


@asynccontextmanager
async def _held(platform: Platform, client: Client) -> AsyncIterator[tuple[ObservedTurn, str]]:
    """A turn held in the middle of its first attempt."""
    gate = uuid.uuid4().hex
    turn = await ObservedTurn.begin(client, script_held_once(gate), may_be_cancelled=True)
    try:
        await turn.shows(MIDDLE)
        yield turn, gate
    finally:
        turn.abandon()
        await platform.release_gate(gate)


def _follow(client: Client, turn: ObservedTurn) -> tuple[StreamClient, "asyncio.Task[Fold]"]:
    reader = client.reader("StreamEvents", turn.ref)
    return reader, asyncio.create_task(reader.run(timeout=60))


@requirement("events:resume", "events:gap-free")
@pytest.mark.parametrize("writer", [0, 1], ids=["first-writes", "second-writes"])
async def test_a_turn_of_one_replica_is_streamed_live_by_the_other(
    platform: Platform, replicas: tuple[ReplicaClient, ReplicaClient], writer: int
) -> None:
    ours, other = replicas[writer], replicas[1 - writer]
    async with _held(platform, ours) as (turn, gate):
        reader, following = _follow(other, turn)
        await wait_until(
            lambda: len(reader.fold.text.split()) >= MIDDLE, 20, "the words shown so far"
        )
        assert turn.fold.terminal is None
        await platform.release_gate(gate)
        assert (await following).raw == (await turn.ended()).raw
        assert await turn.problems() == []


@requirement("events:resume", "turns:idempotent")
async def test_a_repeated_key_at_the_other_replica_follows_the_same_turn(
    platform: Platform, replicas: tuple[ReplicaClient, ReplicaClient]
) -> None:
    ours, other = replicas
    async with _held(platform, ours) as (turn, gate):
        again = turn.repeat(other)
        following = asyncio.create_task(again.run(timeout=60))
        await wait_until(lambda: len(again.fold.text.split()) >= MIDDLE, 20, "the same turn")
        await platform.release_gate(gate)
        assert (await following).raw == (await turn.ended()).raw
        assert await turn.model_calls(platform) == 1


@requirement("turns:cancel", "turns:one-terminal")
async def test_a_turn_of_one_replica_is_cancelled_by_the_other(
    platform: Platform, replicas: tuple[ReplicaClient, ReplicaClient]
) -> None:
    ours, other = replicas
    async with _held(platform, ours) as (turn, _):
        await until_ok(other, "CancelTurn", **turn.ref)
        fold = await turn.ended()
        assert fold.terminal == "run.cancelled"
        [call] = await platform.model_calls(turn.text.split()[-1])
        assert call["outcome"] == "client_closed", "the connection to the model outlived the turn"
        assert await turn.problems() == []


@requirement("turns:liveness", "turns:fenced", "turns:attempt-restarted")
async def test_each_turn_of_a_killed_replica_is_taken_over_once(
    platform: Platform,
    replicas: tuple[ReplicaClient, ReplicaClient],
    figure: Callable[..., None],
) -> None:
    ours, other = replicas
    gate = uuid.uuid4().hex
    turns = [await ObservedTurn.begin(ours, script_held_once(gate)) for _ in range(ORPHANS)]
    await asyncio.gather(*(turn.shows(MIDDLE) for turn in turns))
    await platform.wait_held(gate, ORPHANS)
    try:
        readers = [_follow(other, turn) for turn in turns]
        await kill(platform, FIRST)
        # The first replica restarts during recovery, so both may take the orphans over.
        await until_ready(platform, FIRST)
        folds = await asyncio.gather(*(following for _, following in readers))
        await asyncio.gather(*(turn.ended() for turn in turns))
    finally:
        await platform.release_gate(gate)
    figure(figure="orphans of a replica", orphans=ORPHANS, restarts=[f.restarts for f in folds])
    assert [fold.restarts for fold in folds] == [1] * ORPHANS
    assert [await turn.model_calls(platform) for turn in turns] == [2] * ORPHANS
    assert await problems_of(turns) == []
