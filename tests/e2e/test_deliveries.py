"""A sidecar retries after a broken connection and may deliver a call twice; it takes effect once."""

from typing import Any

import aiohttp

from services.contracts.apps import USER_SCOPES
from services.contracts.llm.conversations import CONVERSATION_SERVICE
from tests.requirements import requirement
from tests.support.platform import Client, Platform

USER = "delivered"


async def deliver(platform: Platform, method: str, call_id: str, **body: Any) -> Any:
    """Deliver a call as the edge's sidecar does."""
    path = CONVERSATION_SERVICE[method].path
    url = f"{platform.stack.url('edge-daprd')}/v1.0/invoke/llm/method{path}"
    headers = {
        "dapr-api-token": platform.stack.api_token("edge"),
        "x-user-id": USER,
        "x-scopes": " ".join(USER_SCOPES),
        "x-call-id": call_id,
    }
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, json=body, headers=headers) as reply,
    ):
        assert reply.status == 200, await reply.text()
        return await reply.json()


async def a_conversation(platform: Platform, call_id: str) -> dict[str, str]:
    created = await deliver(platform, "CreateConversation", call_id)
    return {"conversationId": created["conversationId"]}


@requirement("kit:call-ids")
async def test_an_append_delivered_twice_is_stored_once(own_platform: Platform) -> None:
    named = await a_conversation(own_platform, "call-0")
    first = await deliver(own_platform, "AppendMessage", "call-1", **named, text="once")
    assert await deliver(own_platform, "AppendMessage", "call-1", **named, text="once") == first
    other = await deliver(own_platform, "AppendMessage", "call-2", **named, text="once")
    assert other["message"]["seq"] == "2"


@requirement("kit:call-ids")
async def test_a_message_delivered_twice_is_answered_once(own_platform: Platform) -> None:
    named = await a_conversation(own_platform, "call-5")
    first = await deliver(own_platform, "SendMessage", "call-3", **named, text="hello")
    assert await deliver(own_platform, "SendMessage", "call-3", **named, text="hello") == first
    listed = await deliver(own_platform, "ListMessages", "call-6", **named)
    assert [message["role"] for message in listed["messages"]] == ["USER", "ASSISTANT"]


@requirement("kit:call-ids")
async def test_a_creation_delivered_twice_makes_one_conversation(own_platform: Platform) -> None:
    first = await deliver(own_platform, "CreateConversation", "call-4", title="one")
    assert await deliver(own_platform, "CreateConversation", "call-4", title="one") == first


@requirement("kit:call-ids")
async def test_a_client_cannot_set_the_call_id(alice: Client) -> None:
    named = {"conversationId": await alice.conversation()}
    posed = {"x-call-id": "mine"}
    await alice.must("AppendMessage", posed, **named, text="one")
    second = await alice.must("AppendMessage", posed, **named, text="two")
    assert second["message"]["seq"] == "2"
