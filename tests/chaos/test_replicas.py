"""Two replicas of llm: what one begins the other shows, cancels and takes over."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from tests.chaos.faults import Recovery, kill, running
from tests.chaos.replicas import (
    FIRST,
    SECOND,
    ReplicaClient,
    client_of,
    start_second,
    stop_second,
)
from tests.chaos.turns import MIDDLE, TurnUnderFire, held_at, release, script
from tests.requirements import requirement
from tests.support.patience import until_ok
from tests.support.platform import Client, Platform
from tests.support.sse import Fold, StreamClient
from tests.support.wait import wait_until

ORPHANS = 12


@pytest.fixture
async def replicas(
    platform: Platform, alice: Client
) -> AsyncIterator[tuple[ReplicaClient, ReplicaClient]]:
    """One user's clients of two replicas that answer."""
    del alice  # its fixture waits until the platform answers
    await start_second(platform)
    user = f"twin-{uuid.uuid4().hex[:8]}"
    async with AsyncExitStack() as exits:
        clients = [
            await exits.enter_async_context(client_of(platform, name, user))
            for name in (FIRST, SECOND)
        ]
        for client in clients:
            await Recovery(client).seconds()
        yield clients[0], clients[1]
    await stop_second(platform)


@asynccontextmanager
async def _held(platform: Platform, client: Client) -> AsyncIterator[tuple[TurnUnderFire, str]]:
    """A turn that stands in the middle of its first try."""
    gate = uuid.uuid4().hex
    tries = script()
    tries[0] |= {"gate": gate, "gate_after": MIDDLE}
    turn = await TurnUnderFire.begin(client, tries, may_be_cancelled=True)
    try:
        await turn.shows(MIDDLE)
        yield turn, gate
    finally:
        turn.abandon()
        await release(platform, gate)


def _follow(client: Client, turn: TurnUnderFire) -> tuple[StreamClient, "asyncio.Task[Fold]"]:
    reader = StreamClient(
        client.session, client.path("StreamEvents"), headers=client.headers(), body=turn.ref
    )
    return reader, asyncio.create_task(reader.run(timeout=60))


@requirement("events:resume", "events:gap-free")
@pytest.mark.parametrize("writer", [0, 1], ids=["first-writes", "second-writes"])
async def test_a_turn_of_one_replica_is_followed_live_through_the_other(
    platform: Platform, replicas: tuple[ReplicaClient, ReplicaClient], writer: int
) -> None:
    ours, other = replicas[writer], replicas[1 - writer]
    async with _held(platform, ours) as (turn, gate):
        reader, following = _follow(other, turn)
        await wait_until(
            lambda: len(reader.fold.text.split()) >= MIDDLE, 20, "what was said before the reader"
        )
        assert turn.fold.terminal is None
        await release(platform, gate)
        assert (await following).raw == (await turn.ended()).raw
        assert await turn.problems() == []


@requirement("events:resume", "turns:idempotent")
async def test_a_repeat_by_key_through_the_other_replica_follows_the_same_turn(
    platform: Platform, replicas: tuple[ReplicaClient, ReplicaClient]
) -> None:
    ours, other = replicas
    async with _held(platform, ours) as (turn, gate):
        again = StreamClient(
            other.session,
            other.path("StreamMessage"),
            headers=other.headers({"idempotency-key": turn.key}),
            body={"conversationId": turn.conversation, "text": turn.text},
        )
        following = asyncio.create_task(again.run(timeout=60))
        await wait_until(lambda: len(again.fold.text.split()) >= MIDDLE, 20, "the same turn")
        await release(platform, gate)
        assert (await following).raw == (await turn.ended()).raw
        assert await turn.model_calls(platform) == 1


@requirement("turns:cancel", "turns:one-terminal")
async def test_a_turn_of_one_replica_is_cancelled_through_the_other(
    platform: Platform, replicas: tuple[ReplicaClient, ReplicaClient]
) -> None:
    ours, other = replicas
    async with _held(platform, ours) as (turn, _):
        await until_ok(other, "CancelTurn", **turn.ref)
        fold = await turn.ended()
        assert fold.terminal == "run.cancelled"
        journal = await platform.model("/__journal?messages=0")
        word = turn.text.split()[-1]
        [call] = [each for each in journal["entries"] if word in each["prompt"]]
        assert call["outcome"] == "client_closed", "the model's socket outlived the turn"
        assert await turn.problems() == []


@requirement("turns:liveness", "turns:fenced", "turns:attempt-restarted")
async def test_an_orphan_that_two_replicas_find_is_taken_over_once(
    platform: Platform,
    replicas: tuple[ReplicaClient, ReplicaClient],
    figure: Callable[..., None],
) -> None:
    ours, other = replicas
    gate = uuid.uuid4().hex
    tries = script()
    tries[0] |= {"gate": gate, "gate_after": MIDDLE}
    turns = [await TurnUnderFire.begin(ours, tries) for _ in range(ORPHANS)]
    await asyncio.gather(*(turn.shows(MIDDLE) for turn in turns))
    await held_at(platform, gate, ORPHANS)
    try:
        readers = [_follow(other, turn) for turn in turns]
        await kill(platform, FIRST)
        # The first one comes back while the orphans are still looked for: both may take them.
        await running(platform, FIRST)
        folds = await asyncio.gather(*(following for _, following in readers))
        await asyncio.gather(*(turn.ended() for turn in turns))
    finally:
        await release(platform, gate)
    figure(figure="orphans of a replica", orphans=ORPHANS, restarts=[f.restarts for f in folds])
    assert [fold.restarts for fold in folds] == [1] * ORPHANS
    assert [await turn.model_calls(platform) for turn in turns] == [2] * ORPHANS
    problems = await asyncio.gather(*(turn.problems() for turn in turns))
    assert [each for those in problems for each in those] == []
