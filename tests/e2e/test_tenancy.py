"""Two users cannot see each other: every method answers a foreign id exactly as a missing one."""

import json
from typing import Any

import pytest

from services.contracts.llm.conversations import CONVERSATION_SERVICE
from tests.e2e.actions import ask, live_turn, messages, missing, prompt
from tests.requirements import requirement
from tests.support.platform import Client, Platform

EXTRA: dict[str, dict[str, Any]] = {
    "AppendMessage": {"text": "let me in"},
    "SendMessage": {"text": "let me in"},
    "StreamMessage": {"text": "let me in"},
    "UpdateConversation": {"title": "mine now"},
}
NAMING = {
    method.name: set(method.request.model_fields) & {"conversation_id", "turn_id"}
    for method in CONVERSATION_SERVICE.methods
    if "conversation_id" in method.request.model_fields
}
CALLS = [
    (method.name, verb)
    for method in CONVERSATION_SERVICE.methods
    if method.name in NAMING
    for verb in (("POST", "GET") if method.is_stream else ("POST",))
]


async def answer(client: Client, method: str, verb: str, body: dict[str, Any]) -> Any:
    """The response without headers that differ per request."""
    accept = "text/event-stream" if CONVERSATION_SERVICE[method].is_stream else "application/json"
    query, content = (body, None) if verb == "GET" else (None, body)
    headers = client.headers({"accept": accept})
    async with client.session.request(
        verb, client.path(method), params=query, json=content, headers=headers
    ) as reply:
        private = {"date", "x-request-id", "traceparent", "content-length", "transfer-encoding"}
        shown = {k.lower(): v for k, v in reply.headers.items() if k.lower() not in private}
        return reply.status, shown, await reply.read()


@requirement("conversations:tenancy")
@pytest.mark.parametrize(("method", "verb"), CALLS)
async def test_a_foreign_id_answers_as_a_missing_one(
    alice: Client, bob: Client, method: str, verb: str
) -> None:
    conversation = await alice.conversation(title="private")
    turn = (await alice.must("SendMessage", conversationId=conversation, text="secret"))["turn"]
    own = await bob.conversation()
    before = await messages(alice, conversation)

    def body(conversation_id: str, turn_id: str) -> dict[str, Any]:
        named = {"conversationId": conversation_id, "turnId": turn_id}
        return EXTRA.get(method, {}) | (
            named if "turn_id" in NAMING[method] else {"conversationId": conversation_id}
        )

    foreign = await answer(bob, method, verb, body(conversation, turn["turnId"]))
    absent = await answer(bob, method, verb, body(missing("conv"), missing("turn")))
    assert foreign == absent
    assert foreign[0] == 404
    assert json.loads(foreign[2])["error"]["code"] == "NOT_FOUND"
    if "turn_id" in NAMING[method]:
        by_turn = await answer(bob, method, verb, body(own, turn["turnId"]))
        assert by_turn == await answer(bob, method, verb, body(own, missing("turn")))
        assert by_turn[0] == 404
    assert await messages(alice, conversation) == before


@requirement("conversations:tenancy")
async def test_a_list_shows_its_owners_conversations_only(alice: Client, bob: Client) -> None:
    mine = await alice.conversation()
    theirs = await bob.conversation()
    for client, own in ((alice, mine), (bob, theirs)):
        listed = (await client.must("ListConversations"))["conversations"]
        assert [each["conversationId"] for each in listed] == [own]


@requirement("conversations:tenancy")
async def test_a_stranger_cannot_cancel_a_turn(
    own_platform: Platform, alice: Client, bob: Client, conversation: str
) -> None:
    gate = f"stranger-{conversation}"
    said = prompt(tokens=3, gate=gate, gate_after=1)
    async with live_turn(alice, conversation, said) as turn:
        await own_platform.wait_held(gate)
        refused = await bob.call("CancelTurn", **turn.ref)
        assert refused.code == "NOT_FOUND"
        await own_platform.release_gate(gate)
        assert (await turn.rest()).terminal == "run.completed"


@requirement("conversations:tenancy", "turns:idempotent")
async def test_the_same_key_of_two_users_is_independent(alice: Client, bob: Client) -> None:
    key = {"idempotency-key": "shared-key"}
    mine = await alice.must("CreateConversation", key, title="mine")
    theirs = await bob.must("CreateConversation", key, title="theirs")
    assert mine["conversationId"] != theirs["conversationId"]
    assert theirs["title"] == "theirs"
    await ask(alice, mine["conversationId"], "hello")
    assert await messages(bob, theirs["conversationId"]) == []
