"""The door and API keys: one credential, known everywhere within seconds when it ends, and never written down."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from services.contracts.keys import API_KEY_SERVICE
from services.contracts.scopes import CONVERSATIONS_READ, CONVERSATIONS_WRITE
from services.contracts.tokens import TOKEN_SERVICE, SubjectTokenType
from services.kit.contract import RpcService
from tests.e2e.talk import live_turn, prompt, release, until_held
from tests.requirements import requirement
from tests.support.platform import Client, Platform
from tests.support.wait import wait_until

SCOPES = [CONVERSATIONS_READ, CONVERSATIONS_WRITE]
EVERYWHERE_SECONDS = 5


async def ask(
    client: Client, service: RpcService, method: str, headers: dict[str, str], **body: Any
) -> tuple[int, Any]:
    """Call a method with just these headers."""
    url = client.url + service.edge_path(service[method])
    async with client.session.post(url, json=body, headers=headers) as reply:
        return reply.status, await reply.json()


async def new_key(client: Client) -> tuple[str, str]:
    """A key of a user: its id and its secret."""
    status, made = await ask(
        client, API_KEY_SERVICE, "CreateApiKey", client.headers(), name="a test's", scopes=SCOPES
    )
    assert status == 200, made
    return made["apiKey"]["keyId"], made["secret"]


async def exchanged(client: Client, secret: str) -> str:
    """The access token that a key is traded for, without any other credential."""
    status, made = await ask(
        client,
        TOKEN_SERVICE,
        "ExchangeToken",
        {},
        subjectToken=secret,
        subjectTokenType=SubjectTokenType.API_KEY,
    )
    assert status == 200, made
    return made["accessToken"]


async def status_of(client: Client, headers: dict[str, str], query: str = "") -> int:
    """What a conversation call with just these headers gives."""
    path = client.path("ListConversations") + query
    async with client.session.post(path, json={}, headers=headers) as reply:
        return reply.status


@asynccontextmanager
async def held_stream(platform: Platform, client: Client) -> AsyncIterator[asyncio.Task[bytes]]:
    """A stream of a turn that the model holds; the task ends with the stream."""
    conversation = await client.conversation()
    gate = f"revoked-{conversation}"
    async with live_turn(client, conversation, prompt(tokens=2, gate=gate)) as turn:
        await until_held(platform, gate)
        headers = client.headers({"accept": "text/event-stream"})
        path = client.path("StreamEvents")
        async with client.session.get(path, params=turn.ref, headers=headers) as reply:
            assert reply.status == 200
            reading = asyncio.create_task(reply.read())
            yield reading
            reading.cancel()
        await release(platform, gate)


@requirement("access:edge:keys")
async def test_a_key_speaks_for_its_owner_in_either_header_and_alone(alice: Client) -> None:
    _, secret = await new_key(alice)
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
    """Read a conversation with just these headers."""
    path = client.path("GetConversation")
    body = {"conversationId": conversation}
    async with client.session.post(path, json=body, headers=headers) as reply:
        return reply.status, await reply.json()


@requirement("access:edge:revocation")
@pytest.mark.parametrize("traded", [False, True], ids=["key", "token of a key"])
async def test_a_revoked_key_ends_everywhere_and_takes_its_streams_with_it(
    platform: Platform, alice: Client, traded: bool
) -> None:
    key_id, secret = await new_key(alice)
    robot = replace(alice, token=await exchanged(alice, secret) if traded else secret)
    assert await status_of(robot, robot.headers()) == 200
    async with held_stream(platform, robot) as reading, held_stream(platform, alice) as other:
        began = time.monotonic()
        status, _ = await ask(alice, API_KEY_SERVICE, "RevokeApiKey", alice.headers(), keyId=key_id)
        assert status == 200

        async def refused() -> bool:
            return await status_of(robot, robot.headers()) == 401

        await wait_until(refused, EVERYWHERE_SECONDS, "the key to end")
        await asyncio.wait_for(reading, EVERYWHERE_SECONDS)
        assert time.monotonic() - began < EVERYWHERE_SECONDS
        assert not other.done()
        assert await status_of(alice, alice.headers()) == 200


@requirement("access:edge:keys")
async def test_no_log_shows_a_key_or_a_token(platform: Platform, alice: Client) -> None:
    _, secret = await new_key(alice)
    token = await exchanged(alice, secret)
    for headers in ({"x-api-key": secret}, {"authorization": f"Bearer {token}"}):
        assert await status_of(alice, headers) == 200
    for bad in (secret + "0", token + "x"):
        assert await status_of(alice, {"authorization": f"Bearer {bad}"}) == 401
    assert await status_of(alice, {}, f"?api_key={secret}") == 401
    logs = list(platform.stack.state.logs.glob("*.log"))
    assert any(log.name == "edge.log" for log in logs)
    for log in logs:
        text = log.read_text(errors="replace")
        for hidden in (secret, secret[10:], token, token.split(".")[2]):
            assert hidden not in text, log.name
