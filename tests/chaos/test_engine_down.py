"""While the workflow engine is down, turns that need no wait begin, complete and follow each other."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.chaos.faults import halted, until_writable
from tests.chaos.turns import MIDDLE, ObservedTurn, next_turn_works, problems_of, script
from tests.requirements import requirement
from tests.support.model_server import script_text
from tests.support.platform import Client, Platform, idempotency_key
from tests.support.retries import until_ok
from tests.support.sse import StreamClient
from tests.support.wait import wait_until

PARTS = {"workflows": ("workflows", "workflows-daprd"), "scheduler": ("scheduler",)}
TURNS = 8
CONVERSATIONS = TURNS + 2
"""Those of all tests."""
SECONDS = 60.0
"""Bound of each test; the engine stays down until its end."""


@dataclass
class EngineDown:
    """A user, and conversations that she created before the engine was stopped."""

    client: Client
    conversations: list[str]

    async def turn(self, attempts: list[dict[str, Any]]) -> ObservedTurn:
        named = self.conversations.pop()
        return await ObservedTurn.begin(self.client, attempts, conversation=named)


@pytest.fixture(scope="module", params=PARTS)
async def engine_down(
    platform: Platform, request: pytest.FixtureRequest
) -> AsyncIterator[EngineDown]:
    """Stops a part of the engine during the tests of this module."""
    await until_writable(platform)
    async with platform.client(f"alice-{request.param}") as client:
        made = [await client.conversation() for _ in range(CONVERSATIONS)]
        async with halted(platform, *PARTS[request.param]):
            yield EngineDown(client, made)


@requirement("turns:liveness", "turns:stream")
async def test_turns_complete_while_the_engine_is_down(
    platform: Platform, engine_down: EngineDown
) -> None:
    turns = [await engine_down.turn(script()) for _ in range(TURNS)]
    try:
        async with asyncio.timeout(SECONDS):
            await asyncio.gather(*(turn.ended() for turn in turns))
            assert await problems_of(turns) == []
            assert [await turn.model_calls(platform) for turn in turns] == [1] * len(turns)
            await asyncio.gather(*map(next_turn_works, turns))
    finally:
        for turn in turns:
            turn.abandon()


@requirement("turns:idempotent", "events:resume")
async def test_a_repeated_key_follows_the_running_turn_while_the_engine_is_down(
    platform: Platform, engine_down: EngineDown
) -> None:
    gate = uuid.uuid4().hex
    turn = await engine_down.turn(script(gate=gate, gate_after=MIDDLE))
    try:
        await turn.shows(MIDDLE)
        again = turn.repeat(engine_down.client)
        following = asyncio.create_task(again.run(timeout=SECONDS))
        shown = asyncio.create_task(_shows_again(again))
        await asyncio.wait({following, shown}, return_when=asyncio.FIRST_COMPLETED)
        await platform.release_gate(gate)
        assert (await following).raw == (await turn.ended()).raw
        assert again.failures == [], "a repeat with the same key was refused"
    finally:
        turn.abandon()
        await platform.release_gate(gate)


async def _shows_again(reader: StreamClient) -> None:
    """Wait until the second reader shows the same words or is refused."""
    await wait_until(
        lambda: reader.failures or len(reader.fold.text.split()) >= MIDDLE, 30, "the same turn"
    )


@requirement("turns:enqueue", "turns:liveness")
async def test_queued_turns_run_in_order_while_the_engine_is_down(engine_down: EngineDown) -> None:
    client, conversation = engine_down.client, engine_down.conversations.pop()
    texts = [f"{script_text(tokens=5, delay_ms=20)} {number}" for number in range(3)]

    async def send(text: str) -> None:
        sent = await until_ok(
            client,
            "SendMessage",
            idempotency_key(),
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
