"""API keys at the edge: one credential per call, revoked everywhere within seconds, and never logged."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from services.contracts.auth.keys import API_KEY_SERVICE
from tests.e2e.actions import (
    REVOCATION_SECONDS,
    api_key,
    exchanged,
    live_turn,
    prompt,
    until_refused,
)
from tests.requirements import requirement
from tests.support.platform import Client, Platform


async def status_of(client: Client, headers: dict[str, str], query: str = "") -> int:
    """Status of a call with these headers only."""
    path = client.path("ListConversations") + query
    async with client.session.post(path, json={}, headers=headers) as reply:
        return reply.status


@asynccontextmanager
async def held_stream(platform: Platform, client: Client) -> AsyncIterator[asyncio.Task[bytes]]:
    """The open stream of a held turn; the task ends with the stream."""
    conversation = await client.conversation()
    gate = f"revoked-{conversation}"
    async with live_turn(client, conversation, prompt(tokens=2, gate=gate)) as turn:
        await platform.wait_held(gate)
        headers = client.headers({"accept": "text/event-stream"})
        path = client.path("StreamEvents")
        async with client.session.get(path, params=turn.ref, headers=headers) as reply:
            assert reply.status == 200
            reading = asyncio.create_task(reply.read())
            yield reading
            reading.cancel()
        await platform.release_gate(gate)


@requirement("access:edge:keys")
async def test_a_key_acts_as_its_owner_in_either_header_as_the_only_credential(
    alice: Client,
) -> None:
    _, secret = await api_key(alice)
    conversation = await alice.conversation()
    for headers in ({"authorization": f"Bearer {secret}"}, {"x-api-key": secret}):
        status, found = await ask_conversation(alice, headers, conversation)
        assert (status, found["conversationId"]) == (200, conversation)
        assert await status_of(alice, {**headers, "x-user-id": "root", "x_user_id": "root"}) == 200
    bearer = alice.headers()
    assert await status_of(alice, {**bearer, "x-api-key": secret}) == 401
    assert await status_of(alice, {}, f"?api_key={secret}") == 401
    assert await status_of(alice, bearer, f"?x-api-key={secret}") == 401
    assert await status_of(alice, {"x-api-key": secret[:-1] + "~"}) == 401


async def ask_conversation(
    client: Client, headers: dict[str, str], conversation: str
) -> tuple[int, Any]:
    """Read a conversation with these headers only."""
    path = client.path("GetConversation")
    body = {"conversationId": conversation}
    async with client.session.post(path, json=body, headers=headers) as reply:
        return reply.status, await reply.json()


@requirement("access:edge:revocation")
@pytest.mark.parametrize("is_exchanged", [False, True], ids=["key", "token of a key"])
async def test_a_revoked_key_is_refused_everywhere_and_its_streams_end(
    own_platform: Platform, alice: Client, is_exchanged: bool
) -> None:
    key_id, secret = await api_key(alice)
    robot = alice.as_(await exchanged(alice, secret) if is_exchanged else secret)
    await robot.must("ListConversations")
    async with (
        held_stream(own_platform, robot) as reading,
        held_stream(own_platform, alice) as other,
    ):
        began = time.monotonic()
        await alice.must_of(API_KEY_SERVICE, "RevokeApiKey", keyId=key_id)
        await until_refused(robot)
        await asyncio.wait_for(reading, REVOCATION_SECONDS)
        assert time.monotonic() - began < REVOCATION_SECONDS
        assert not other.done()
        await alice.must("ListConversations")


@requirement("access:edge:keys")
async def test_no_log_shows_a_key_or_a_token(own_platform: Platform, alice: Client) -> None:
    _, secret = await api_key(alice)
    token = await exchanged(alice, secret)
    for headers in ({"x-api-key": secret}, {"authorization": f"Bearer {token}"}):
        assert await status_of(alice, headers) == 200
    for bad in (secret + "0", token + "x"):
        assert await status_of(alice, {"authorization": f"Bearer {bad}"}) == 401
    assert await status_of(alice, {}, f"?api_key={secret}") == 401
    logs = list(own_platform.stack.state.logs.glob("*.log"))
    assert any(log.name == "edge.log" for log in logs)
    for log in logs:
        text = log.read_text(errors="replace")
        for hidden in (secret, secret[10:], token, token.split(".")[2]):
            assert hidden not in text, log.name
