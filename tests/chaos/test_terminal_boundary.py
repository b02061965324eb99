"""Requests after the terminal event end at once, and a resume without its key begins no turn."""

import asyncio
import uuid
from typing import Any

import aiohttp

from tests.chaos.turns import ObservedTurn, script
from tests.requirements import requirement
from tests.support.platform import Client, Platform

SECONDS = 30.0
"""Bound of a response; an idle stream stays open longer."""


async def _reply(
    client: Client, method: str, headers: dict[str, str], body: dict[str, Any]
) -> tuple[int, bytes]:
    """Status and body of a stream that must end by itself."""
    async with asyncio.timeout(SECONDS), client.stream(method, headers, **body) as reply:
        return reply.status, await reply.read()


async def _ended(client: Client) -> tuple[ObservedTurn, str]:
    turn = await ObservedTurn.begin(client, script())
    fold = await turn.ended()
    return turn, str(fold.seq)


@requirement("events:resume", "turns:one-terminal")
async def test_a_resume_after_the_terminal_event_gets_204(alice: Client) -> None:
    turn, last = await _ended(alice)
    nothing = (204, b"")
    assert await _reply(alice, "StreamEvents", {"last-event-id": last}, turn.ref) == nothing
    assert await _reply(alice, "StreamEvents", {}, {**turn.ref, "after": last}) == nothing
    by_key = {"idempotency-key": turn.key, "last-event-id": last}
    body = {"conversationId": turn.conversation, "text": turn.text}
    assert await _reply(alice, "StreamMessage", by_key, body) == nothing
    listed = await alice.must("ListEvents", **turn.ref, after=last)
    assert (listed["events"], listed["closed"]) == ([], True)


@requirement("turns:idempotent", "events:resume")
async def test_a_repeated_key_after_the_end_replays_the_turn(
    platform: Platform, alice: Client
) -> None:
    turn, _ = await _ended(alice)
    again = turn.repeat(alice)
    assert (await again.run(timeout=SECONDS)).raw == turn.fold.raw
    assert again.connections == 1
    assert await turn.model_calls(platform) == 1


@requirement("turns:idempotent", "events:bad-cursor")
async def test_a_resume_without_its_key_begins_no_second_turn(alice: Client) -> None:
    conversation = await alice.conversation()
    body = {"conversationId": conversation, "text": f"once {uuid.uuid4().hex}"}
    path, headers = alice.path("StreamMessage"), {"last-event-id": "3"}
    accept = {"accept": "text/event-stream, application/json"}
    timeout = aiohttp.ClientTimeout(total=SECONDS)
    async with alice.session.post(
        path, json=body, headers=alice.headers({**headers, **accept}), timeout=timeout
    ) as reply:
        assert reply.status == 400, await reply.text()
        assert (await reply.json())["error"]["code"] == "INVALID_ARGUMENT"
    assert (await alice.must("ListMessages", conversationId=conversation))["messages"] == []
