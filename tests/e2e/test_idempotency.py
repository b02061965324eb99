"""Idempotency keys: replay, in progress, another body; per caller and method."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from tests.e2e.actions import ask, mark, messages, prompt
from tests.requirements import requirement
from tests.support.platform import Client, Platform
from tests.support.wait import wait_until

pytestmark = pytest.mark.usefixtures("own_platform")  # the model is scripted


async def raw(client: Client, method: str, key: str, **body: Any) -> tuple[int, bytes, bool]:
    """Status, bytes, and whether the answer is a replay."""
    headers = client.headers({"idempotency-key": key})
    async with client.session.post(client.path(method), json=body, headers=headers) as reply:
        return reply.status, await reply.read(), reply.headers.get("idempotent-replayed") == "true"


@requirement("kit:idempotency", "turns:idempotent")
@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("CreateConversation", {"title": "once"}),
        ("UpdateConversation", {"title": "once"}),
        ("AppendMessage", {"text": "once"}),
        ("SendMessage", {"text": "once"}),
        ("DeleteConversation", {}),
    ],
)
async def test_a_repeat_returns_the_stored_reply_without_effect(
    alice: Client, conversation: str, method: str, fields: Mapping[str, Any]
) -> None:
    body = (
        {**fields} if method == "CreateConversation" else {"conversationId": conversation, **fields}
    )
    first = await raw(alice, method, "key", **body)
    second = await raw(alice, method, "key", **body)
    assert first == (200, first[1], False)
    assert second == (200, first[1], True)
    if method != "DeleteConversation":
        written = {"AppendMessage": 1, "SendMessage": 2}.get(method, 0)
        assert len(await messages(alice, conversation)) == written
    listed = (await alice.must("ListConversations"))["conversations"]
    assert len(listed) == {"CreateConversation": 2, "DeleteConversation": 0}.get(method, 1)


@requirement("kit:idempotency")
async def test_a_final_refusal_is_replayed_too(alice: Client) -> None:
    body = {"model": "no/such-model"}
    first = await raw(alice, "CreateConversation", "key", **body)
    second = await raw(alice, "CreateConversation", "key", **body)
    assert (first[0], second) == (400, (400, first[1], True))


@requirement("kit:idempotency")
async def test_a_repeat_while_the_first_call_runs_gets_409_with_retry_after(
    own_platform: Platform, alice: Client, conversation: str
) -> None:
    gate = f"progress-{conversation}"
    body = {"conversationId": conversation, "text": prompt(tokens=2, gate=gate).text}
    first = asyncio.create_task(raw(alice, "SendMessage", "key", **body))
    await own_platform.wait_held(gate)
    early = await alice.call("SendMessage", {"idempotency-key": "key"}, **body)
    assert (early.status, early.code) == (409, "ABORTED")
    assert int(early.headers["retry-after"]) >= 1
    assert early.body["error"]["details"]["retryInfo"]["retryAfter"].endswith("s")
    await own_platform.release_gate(gate)
    done = await first
    assert await raw(alice, "SendMessage", "key", **body) == (200, done[1], True)


@requirement("kit:idempotency")
async def test_a_key_with_another_body_is_refused(alice: Client, conversation: str) -> None:
    key = {"idempotency-key": "key"}
    for method in ("AppendMessage", "SendMessage", "StreamMessage"):
        body = {"conversationId": conversation, "text": "one"}
        if method == "StreamMessage":
            await alice.reader(method, body, key).run()
        else:
            await alice.must(method, key, **body)
        before = await messages(alice, conversation)
        other = await alice.call(method, key, conversationId=conversation, text="two")
        assert (other.status, other.code) == (422, "IDEMPOTENCY_KEY_REUSED"), method
        assert await messages(alice, conversation) == before


@requirement("kit:idempotency")
async def test_a_key_belongs_to_one_method(alice: Client, conversation: str) -> None:
    key = {"idempotency-key": "key"}
    await alice.must("AppendMessage", key, conversationId=conversation, text="one")
    await alice.must("SendMessage", key, conversationId=conversation, text="two")
    assert len(await messages(alice, conversation)) == 3


@requirement("turns:idempotent", "events:resume")
async def test_a_stream_with_the_same_key_follows_the_same_turn(
    own_platform: Platform, alice: Client, conversation: str
) -> None:
    gate = f"same-{conversation}"
    said = prompt(tokens=5, gate=gate, gate_after=2)
    body = {"conversationId": conversation, "text": said.text}
    key = {"idempotency-key": "key"}
    readers = [alice.reader("StreamMessage", body, key) for _ in range(3)]
    running = [asyncio.create_task(one.run()) for one in readers]
    await wait_until(lambda: all(one.fold.text for one in readers), what="text at every reader")
    await own_platform.release_gate(gate)
    folds = await asyncio.gather(*running)
    late = await alice.reader("StreamMessage", body, key).run()
    assert folds[0].raw == folds[1].raw == folds[2].raw == late.raw
    assert len(await own_platform.model_calls(said.word)) == 1
    assert len(await messages(alice, conversation)) == 2


@requirement("turns:idempotent")
async def test_many_repeats_at_once_are_one_turn(
    own_platform: Platform, alice: Client, conversation: str
) -> None:
    said = prompt(tokens=2)
    body = {"conversationId": conversation, "text": said.text}
    answers = await asyncio.gather(*(raw(alice, "SendMessage", "key", **body) for _ in range(10)))
    assert {status for status, _, _ in answers} <= {200, 409}
    assert len({content for status, content, _ in answers if status == 200}) == 1
    assert len(await own_platform.model_calls(said.word)) == 1
    assert len(await messages(alice, conversation)) == 2


@requirement("kit:idempotency")
@pytest.mark.parametrize("key", ["x" * 256, "", "with space", "naïve"])
async def test_a_malformed_key_names_the_header(alice: Client, conversation: str, key: str) -> None:
    answer = await alice.call(
        "AppendMessage", {"idempotency-key": key}, conversationId=conversation, text=mark()
    )
    assert answer.code == "INVALID_ARGUMENT"
    [violation] = answer.body["error"]["details"]["fieldViolations"]
    assert violation["field"] == "Idempotency-Key"
    assert await messages(alice, conversation) == []


@requirement("turns:idempotent")
async def test_each_call_without_a_key_makes_a_turn(alice: Client, conversation: str) -> None:
    for _ in range(2):
        await ask(alice, conversation, "again")
    assert len(await messages(alice, conversation)) == 4


@requirement("turns:idempotent")
async def test_one_key_in_two_conversations_makes_a_turn_in_each(alice: Client) -> None:
    first, second = await alice.conversation(), await alice.conversation()
    one, other = [
        await alice.reader(
            "StreamMessage",
            {"conversationId": conversation, "text": f"for the {place}"},
            headers={"idempotency-key": "same"},
        ).run()
        for place, conversation in (("first", first), ("second", second))
    ]
    assert (one.text, other.text) == ("You said: for the first", "You said: for the second")
    for conversation in (first, second):
        assert len(await messages(alice, conversation)) == 2
        assert (await ask(alice, conversation, "and now?")).terminal == "run.completed"
