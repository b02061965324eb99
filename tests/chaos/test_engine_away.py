"""The engine is away: turns begin, go on, end and follow each other, for as long as no work waits for it."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.chaos.faults import running
from tests.chaos.turns import MIDDLE, TurnUnderFire, next_turn_works, release, script
from tests.requirements import requirement
from tests.support.model_server import script_text
from tests.support.patience import until_ok
from tests.support.platform import Client, Platform
from tests.support.sse import StreamClient
from tests.support.wait import wait_until

PARTS = {"workflows": ("workflows", "workflows-daprd"), "scheduler": ("scheduler",)}
TURNS = 8
SECONDS = 60.0
"""Far less than the engine stays away: until the test ends."""


@dataclass
class Away:
    """Alice, and conversations that she had before the engine went away."""

    client: Client
    conversations: list[str]

    async def turn(self, tries: list[dict[str, Any]]) -> TurnUnderFire:
        """Begin a turn in one of the conversations."""
        named = self.conversations.pop()
        return await TurnUnderFire.begin(self.client, tries, conversation=named)


@pytest.fixture(params=PARTS)
async def away(
    platform: Platform, alice: Client, request: pytest.FixtureRequest
) -> AsyncIterator[Away]:
    """A part of the engine is stopped while the test runs."""
    made = [await until_ok(alice, "CreateConversation") for _ in range(TURNS)]
    parts = PARTS[request.param]
    for name in parts:
        await asyncio.to_thread(platform.stack.halt, name)
    yield Away(alice, [each["conversationId"] for each in made])
    for name in parts:
        await asyncio.to_thread(platform.stack.supervisor.start, name)
    await running(platform, *parts)


@requirement("turns:liveness", "turns:stream")
async def test_turns_go_on_while_the_engine_is_away(platform: Platform, away: Away) -> None:
    turns = [await away.turn(script()) for _ in range(TURNS)]
    try:
        async with asyncio.timeout(SECONDS):
            await asyncio.gather(*(turn.ended() for turn in turns))
            assert [each for turn in turns for each in await turn.problems()] == []
            assert [await turn.model_calls(platform) for turn in turns] == [1] * len(turns)
            await asyncio.gather(*map(next_turn_works, turns))
    finally:
        for turn in turns:
            turn.abandon()


@requirement("turns:idempotent", "events:resume")
async def test_a_reconnect_by_key_follows_the_turn_while_the_engine_is_away(
    platform: Platform, away: Away
) -> None:
    gate, client = uuid.uuid4().hex, away.client
    turn = await away.turn(script(gate=gate, gate_after=MIDDLE))
    try:
        await turn.shows(MIDDLE)
        again = StreamClient(
            client.session,
            client.path("StreamMessage"),
            headers=client.headers({"idempotency-key": turn.key}),
            body={"conversationId": turn.conversation, "text": turn.text},
        )
        following = asyncio.create_task(again.run(timeout=SECONDS))
        shown = asyncio.create_task(_shows_again(again))
        await asyncio.wait({following, shown}, return_when=asyncio.FIRST_COMPLETED)
        await release(platform, gate)
        assert (await following).raw == (await turn.ended()).raw
        assert again.failures == [], "a reconnect by key was refused"
    finally:
        turn.abandon()
        await release(platform, gate)


async def _shows_again(reader: StreamClient) -> None:
    """Wait until the second connection, or a refusal of it, is there."""
    await wait_until(
        lambda: reader.failures or len(reader.fold.text.split()) >= MIDDLE, 30, "the same turn"
    )


@requirement("turns:enqueue", "turns:liveness")
async def test_queued_turns_follow_each_other_while_the_engine_is_away(away: Away) -> None:
    client, conversation = away.client, away.conversations.pop()
    texts = [f"{script_text(tokens=5, delay_ms=20)} {number}" for number in range(3)]

    async def send(text: str) -> None:
        key = {"idempotency-key": uuid.uuid4().hex}
        sent = await until_ok(
            client,
            "SendMessage",
            key,
            seconds=SECONDS,
            conversationId=conversation,
            text=text,
            admission="ENQUEUE",
        )
        assert sent["turn"]["status"] == "COMPLETED"

    async with asyncio.timeout(SECONDS):
        await asyncio.gather(*map(send, texts))
    listed = await until_ok(client, "ListMessages", conversationId=conversation)
    assert [each["role"] for each in listed["messages"]] == ["USER", "ASSISTANT"] * len(texts)
    assert sorted(each["text"] for each in listed["messages"][::2]) == texts
