"""Who comes back after the terminal event is told at once that there is no more; who lost the key begins nothing."""

import asyncio
import uuid
from typing import Any

import aiohttp

from tests.chaos.turns import TurnUnderFire, script
from tests.requirements import requirement
from tests.support.platform import Client, Platform
from tests.support.sse import StreamClient

SECONDS = 30.0
"""An idle stream would be kept open far longer."""


async def _reply(
    client: Client, method: str, headers: dict[str, str], body: dict[str, Any]
) -> tuple[int, bytes]:
    """Status and whole body of a stream that has to end by itself."""
    async with asyncio.timeout(SECONDS), client.stream(method, headers, **body) as reply:
        return reply.status, await reply.read()


async def _ended(client: Client) -> tuple[TurnUnderFire, str]:
    turn = await TurnUnderFire.begin(client, script())
    fold = await turn.ended()
    return turn, str(fold.seq)


@requirement("events:resume", "turns:one-terminal")
async def test_a_reader_who_has_seen_the_end_gets_204(alice: Client) -> None:
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
async def test_a_repeat_by_key_after_the_end_replays_the_turn(
    platform: Platform, alice: Client
) -> None:
    turn, _ = await _ended(alice)
    again = StreamClient(
        alice.session,
        alice.path("StreamMessage"),
        headers=alice.headers({"idempotency-key": turn.key}),
        body={"conversationId": turn.conversation, "text": turn.text},
    )
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
