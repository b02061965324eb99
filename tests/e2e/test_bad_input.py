"""Bad input gives an RpcError that names the field, and writes nothing."""

import json
from typing import Any

import pytest

from tests.e2e.actions import messages, missing, post, prompt
from tests.requirements import requirement
from tests.support.platform import Client, Platform

MAX_TEXT_BYTES = 65_536

CASES: list[tuple[str, dict[str, Any], str]] = [
    ("SendMessage", {"text": ""}, "text"),
    ("SendMessage", {}, "text"),
    ("SendMessage", {"text": None}, "text"),
    ("SendMessage", {"text": 7}, "text"),
    ("SendMessage", {"text": ["a"]}, "text"),
    ("SendMessage", {"text": "x" * (MAX_TEXT_BYTES + 1)}, "text"),
    ("SendMessage", {"text": "🙂" * (MAX_TEXT_BYTES // 4) + "x"}, "text"),
    ("SendMessage", {"text": "a", "colour": "red"}, "colour"),
    ("SendMessage", {"text": "a", "temperature": "warm"}, "temperature"),
    ("SendMessage", {"text": "a", "temperature": 2.1}, "temperature"),
    ("SendMessage", {"text": "a", "maxOutputTokens": 0}, "maxOutputTokens"),
    ("SendMessage", {"text": "a", "maxOutputTokens": 32_769}, "maxOutputTokens"),
    ("SendMessage", {"text": "a", "maxOutputTokens": 1.5}, "maxOutputTokens"),
    ("SendMessage", {"text": "a", "admission": "MAYBE"}, "admission"),
    ("SendMessage", {"text": "a", "onDisconnect": 1}, "onDisconnect"),
    ("SendMessage", {"text": "a", "model": ""}, "model"),
    ("StreamMessage", {"text": ""}, "text"),
    ("StreamMessage", {"text": "a", "colour": "red"}, "colour"),
    ("AppendMessage", {"text": ""}, "text"),
    ("AppendMessage", {"text": "a", "role": "ROBOT"}, "role"),
    ("ListMessages", {"limit": 0}, "limit"),
    ("ListMessages", {"limit": 101}, "limit"),
    ("ListMessages", {"limit": "many"}, "limit"),
    ("ListMessages", {"order": "SIDEWAYS"}, "order"),
    ("ListMessages", {"cursor": "x" * 513}, "cursor"),
    ("UpdateConversation", {"title": "x" * 201}, "title"),
    ("UpdateConversation", {"metadata": {"k": 1}}, "metadata.k"),
    ("UpdateConversation", {"metadata": {"k": "x" * 513}}, "metadata.k"),
    ("UpdateConversation", {"metadata": {str(n): "" for n in range(17)}}, "metadata"),
    ("GetTurn", {"turnId": "turn_1"}, "turnId"),
    ("GetTurn", {}, "turnId"),
    ("ListEvents", {"turnId": missing("turn"), "waitSeconds": 61}, "waitSeconds"),
    ("ListEvents", {"turnId": missing("turn"), "limit": 1001}, "limit"),
]


@requirement("conversations:bad-input")
@pytest.mark.parametrize(("method", "fields", "field"), CASES, ids=lambda value: str(value)[:40])
async def test_bad_input_names_the_field_and_writes_nothing(
    alice: Client, conversation: str, method: str, fields: dict[str, Any], field: str
) -> None:
    before = await alice.must("GetConversation", conversationId=conversation)
    answer = await alice.call(method, conversationId=conversation, **fields)
    assert (answer.status, answer.code) == (400, "INVALID_ARGUMENT"), answer
    violations = answer.body["error"]["details"]["fieldViolations"]
    assert [each["field"] for each in violations] == [field]
    assert answer.body["error"]["isTerminal"] is True
    assert await alice.must("GetConversation", conversationId=conversation) == before


@requirement("conversations:bad-input")
@pytest.mark.parametrize("value", ["conv_1", "", None, 7, "conv_" + "A" * 26, "../admin", ["a"]])
async def test_a_malformed_id_names_the_field(alice: Client, value: Any) -> None:
    answer = await alice.call("GetConversation", conversationId=value)
    assert answer.code == "INVALID_ARGUMENT"
    [violation] = answer.body["error"]["details"]["fieldViolations"]
    assert violation["field"] == "conversationId"


@requirement("conversations:bad-input")
@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b'{"conversationId": "conv_1", }',
        b'{"text": "\\ud800"}',
        b"{" * 5000,
        b"title=x",
    ],
    ids=repr,
)
async def test_a_malformed_body_is_refused(alice: Client, body: bytes) -> None:
    status, answer = await post(alice, "CreateConversation", body)
    assert (status, answer["error"]["code"]) == (400, "INVALID_ARGUMENT")
    assert (await alice.must("ListConversations"))["conversations"] == []


@requirement("conversations:bad-input")
@pytest.mark.parametrize("text", ["x" * MAX_TEXT_BYTES, "🙂" * (MAX_TEXT_BYTES // 4), "\u0000"])
async def test_the_longest_and_unusual_texts_are_accepted(
    alice: Client, conversation: str, text: str
) -> None:
    await alice.must("AppendMessage", conversationId=conversation, text=text)
    assert [each["text"] for each in await messages(alice, conversation)] == [text]


@requirement("conversations:bad-input")
async def test_field_names_in_snake_case_are_accepted(alice: Client, conversation: str) -> None:
    body = json.dumps({"conversation_id": conversation}).encode()
    status, answer = await post(alice, "GetConversation", body)
    assert (status, answer["conversationId"]) == (200, conversation)


@requirement("conversations:bad-input")
async def test_a_field_given_twice_in_a_query_is_refused(alice: Client, conversation: str) -> None:
    query = [("conversationId", conversation), ("text", "a"), ("text", "b")]
    headers = alice.headers({"accept": "text/event-stream"})
    path = alice.path("StreamMessage")
    async with alice.session.get(path, params=query, headers=headers) as reply:
        error = (await reply.json())["error"]
    assert error["code"] == "INVALID_ARGUMENT"
    assert error["details"]["fieldViolations"][0]["field"] == "text"
    assert await messages(alice, conversation) == []


@requirement("model:unknown")
async def test_an_unknown_model_is_refused_and_nothing_is_written(
    own_platform: Platform, alice: Client, conversation: str
) -> None:
    said = prompt()
    for method, fields in (
        ("SendMessage", {"text": said.text}),
        ("StreamMessage", {"text": said.text}),
        ("UpdateConversation", {}),
    ):
        answer = await alice.call(
            method, conversationId=conversation, model="no/such-model", **fields
        )
        assert (answer.status, answer.code) == (400, "MODEL_INVALID"), method
    assert (await alice.call("CreateConversation", model="no/such")).code == "MODEL_INVALID"
    assert await messages(alice, conversation) == []
    assert len((await alice.must("ListConversations"))["conversations"]) == 1
    assert await own_platform.model_calls(said.word) == []
