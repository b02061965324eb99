"""Cancel from any client: the upstream closes, the text is kept, one terminal event, a complete receipt."""

import time
from datetime import datetime

import asyncpg
import pytest

from tests.e2e.actions import ask, ended, events_of, live_turn, messages, prompt, user_of
from tests.requirements import requirement
from tests.support.platform import Client, Platform

pytestmark = pytest.mark.usefixtures("own_platform")  # the model is scripted

CLOSED_WITHIN_SECONDS = 1.0


@requirement("turns:cancel", "turns:one-terminal")
async def test_a_cancel_from_another_client_stops_the_model_and_keeps_the_text(
    own_platform: Platform, alice: Client, conversation: str
) -> None:
    gate = f"cancel-{conversation}"
    said = prompt(tokens=9, gate=gate, gate_after=3)
    async with (
        live_turn(alice, conversation, said, until_text=True) as turn,
        own_platform.client(user_of(alice)) as phone,
    ):
        await own_platform.wait_held(gate)
        asked = time.monotonic()
        answer = await phone.must("CancelTurn", **turn.ref)
        fold = await turn.rest()

    [call] = await own_platform.model_calls(said.word)
    assert call["outcome"] == "client_closed"
    assert call["client_closed_at"] - asked < CLOSED_WITHIN_SECONDS

    assert fold.terminal == "run.cancelled"
    assert fold.text == "token0 token1 token2 "
    stored = (await messages(alice, conversation))[-1]
    assert (stored["text"], stored["incomplete"]) == (fold.text, True)
    assert fold.events[-1]["data"] == {"messageSeq": stored["seq"]}

    receipt = answer["cancel"]
    times = [receipt[name] for name in ("requestedAt", "acknowledgedAt", "upstreamClosedAt")]
    parsed = [datetime.fromisoformat(value) for value in times]
    assert parsed == sorted(parsed)
    assert receipt["tokensAfterCancel"] == 0
    assert (answer["status"], answer["assistantMessageSeq"]) == ("CANCELLED", stored["seq"])
    assert await alice.must("GetTurn", **turn.ref) == answer


@requirement("turns:cancel")
async def test_a_cancel_closes_a_model_call_that_has_sent_nothing(
    own_platform: Platform, alice: Client, conversation: str
) -> None:
    gate = f"silent-{conversation}"
    said = prompt(tokens=3, gate=gate)
    async with live_turn(alice, conversation, said) as turn:
        await own_platform.wait_held(gate)
        asked = time.monotonic()
        answer = await alice.must("CancelTurn", **turn.ref)
        assert (await turn.rest()).terminal == "run.cancelled"
    [call] = await own_platform.model_calls(said.word)
    assert call["client_closed_at"] - asked < CLOSED_WITHIN_SECONDS
    assert "assistantMessageSeq" not in answer
    assert [each["role"] for each in await messages(alice, conversation)] == ["USER"]


@requirement("turns:cancel")
async def test_a_second_cancel_returns_the_first_receipt(
    own_platform: Platform, alice: Client, conversation: str
) -> None:
    gate = f"twice-{conversation}"
    async with live_turn(alice, conversation, prompt(tokens=3, gate=gate)) as turn:
        await own_platform.wait_held(gate)
        first = await alice.must("CancelTurn", **turn.ref)
        assert await alice.must("CancelTurn", **turn.ref) == first


@requirement("turns:cancel", "turns:one-terminal")
async def test_cancelling_an_ended_turn_changes_nothing(alice: Client, conversation: str) -> None:
    turn = (await alice.must("SendMessage", conversationId=conversation, text="done"))["turn"]
    ref = {"conversationId": conversation, "turnId": turn["turnId"]}
    assert await alice.must("CancelTurn", **ref) == turn
    assert (await events_of(alice, ref)).terminal == "run.completed"


@requirement("turns:cancel")
async def test_the_conversation_accepts_messages_after_a_cancel(
    own_platform: Platform, alice: Client, conversation: str
) -> None:
    gate = f"go-on-{conversation}"
    said = prompt(tokens=4, gate=gate, gate_after=2)
    async with live_turn(alice, conversation, said, until_text=True) as turn:
        await own_platform.wait_held(gate)
        await alice.must("CancelTurn", **turn.ref)
    assert (await ask(alice, conversation, "and now?")).text == "You said: and now?"
    assert [each["incomplete"] for each in await messages(alice, conversation)] == [
        False,
        True,
        False,
        False,
    ]


@requirement("turns:cancel-before-start")
async def test_a_cancelled_queued_turn_never_reaches_the_model(
    own_platform: Platform, alice: Client, conversation: str, database: asyncpg.Connection
) -> None:
    gate = f"before-{conversation}"
    waiting = prompt(tokens=1)
    async with live_turn(alice, conversation, prompt(tokens=2, gate=gate)) as running:
        await own_platform.wait_held(gate)
        body = {"conversationId": conversation, "text": waiting.text, "admission": "ENQUEUE"}
        key = {"idempotency-key": "waiting"}
        async with alice.stream("StreamMessage", key, **body) as reply:
            assert reply.status == 200  # queued: no event yet
        found = "SELECT id FROM events.streams WHERE subject = $1 AND id <> $2"
        turn_id = await database.fetchval(found, conversation, running.turn_id)
        ref = {"conversationId": conversation, "turnId": turn_id}
        assert (await alice.must("GetTurn", **ref))["status"] == "QUEUED"
        answer = await alice.must("CancelTurn", **ref)
        assert (answer["status"], answer["attempts"]) == ("CANCELLED", 0)
        assert {"requestedAt", "acknowledgedAt"} <= answer["cancel"].keys()
        fold = await alice.reader("StreamMessage", body, key).run()
        assert [event["type"] for event in fold.events] == ["run.cancelled"]
        await own_platform.release_gate(gate)
        assert (await ended(alice, running.ref))["status"] == "COMPLETED"
    assert await own_platform.model_calls(waiting.word) == []
    stored = await messages(alice, conversation)
    assert waiting.text in [each["text"] for each in stored if each["role"] == "USER"]
