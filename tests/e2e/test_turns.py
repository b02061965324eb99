"""Turns through the edge: streaming, admission, disconnects, fencing, and recovery."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from datetime import timedelta

import asyncpg
import pytest

from services.contracts.llm.turns import TURN_STREAM
from services.kit.eventlog import EventLog, NewEvent, NewStream
from tests.e2e.actions import (
    ask,
    ended,
    events_of,
    live_turn,
    messages,
    pass_deadline,
    prompt,
    user_of,
)
from tests.requirements import requirement
from tests.support.actors import ActorCalls
from tests.support.platform import Client, Platform
from tests.support.wait import wait_until

pytestmark = pytest.mark.usefixtures("own_platform")  # the model is scripted

MAX_QUEUE = 8


@requirement("turns:send")
async def test_send_message_answers_with_the_finished_turn_and_its_message(
    alice: Client, conversation: str
) -> None:
    answer = await alice.must("SendMessage", conversationId=conversation, text="hello there")
    turn, message = answer["turn"], answer["message"]
    assert (turn["status"], turn["finishReason"], turn["attempts"]) == ("COMPLETED", "stop", 1)
    assert turn["usage"]["completionTokens"] > 0
    assert (message["role"], message["text"]) == ("ASSISTANT", "You said: hello there")
    stored = await messages(alice, conversation)
    assert [(each["seq"], each["role"]) for each in stored] == [("1", "USER"), ("2", "ASSISTANT")]
    assert stored[1] == message
    assert (turn["userMessageSeq"], turn["assistantMessageSeq"]) == ("1", "2")


@requirement("turns:send")
async def test_the_model_sees_the_system_prompt_and_the_history(
    own_platform: Platform, alice: Client
) -> None:
    conversation = await alice.conversation(systemPrompt="Be brief.", model="scripted/one")
    await alice.must("SendMessage", conversationId=conversation, text="first")
    said = prompt(tokens=1)
    await alice.must("SendMessage", conversationId=conversation, text=said.text)
    [call] = await own_platform.model_calls(said.word)
    assert [(each["role"], each["content"]) for each in call["messages"]] == [
        ("system", "Be brief."),
        ("user", "first"),
        ("assistant", "You said: first"),
        ("user", said.text),
    ]


@requirement("turns:stream", "edge:stream-flush")
async def test_the_first_text_arrives_before_the_model_has_finished(
    own_platform: Platform, alice: Client, conversation: str
) -> None:
    gate = f"first-{conversation}"
    said = prompt(tokens=4, gate=gate, gate_after=1)
    async with live_turn(alice, conversation, said, until_text=True) as turn:
        assert turn.stream.fold.text == "token0 "
        [call] = await own_platform.model_calls(said.word)
        assert (call["outcome"], call["tokens_sent"], call["waiting_at"]) == ("open", 1, gate)
        await own_platform.release_gate(gate)
        fold = await turn.rest()
    assert fold.text == "token0 token1 token2 token3 "
    assert (await messages(alice, conversation))[-1]["text"] == fold.text


@requirement("turns:one-terminal", "events:gap-free")
async def test_a_stream_begins_with_run_started_and_ends_with_its_one_terminal_event(
    alice: Client, conversation: str
) -> None:
    fold = await ask(alice, conversation, prompt(tokens=30, reasoning=["hm ", "so"]).text)
    kinds = [event["type"] for event in fold.events]
    assert kinds[0] == "run.started"
    assert kinds[-2:] == ["usage", "run.completed"]
    assert set(kinds[1:-2]) == {"reasoning.delta", "text.delta"}
    assert fold.events[-1]["data"] == {"finishReason": "stop", "messageSeq": "2"}


@requirement("turns:reject")
async def test_a_message_is_refused_while_a_turn_runs(
    own_platform: Platform, alice: Client, conversation: str
) -> None:
    gate = f"reject-{conversation}"
    async with live_turn(alice, conversation, prompt(tokens=2, gate=gate)) as turn:
        await own_platform.wait_held(gate)
        for method in ("SendMessage", "StreamMessage"):
            refused = await alice.call(method, conversationId=conversation, text="me too")
            assert (refused.status, refused.code) == (409, "TURN_IN_PROGRESS")
        view = await alice.must("GetConversation", conversationId=conversation)
        assert (view["activeTurnId"], view["messageCount"]) == (turn.turn_id, "1")
        await own_platform.release_gate(gate)
        await turn.rest()
    await alice.must("SendMessage", conversationId=conversation, text="now")


@requirement("turns:enqueue")
async def test_queued_turns_run_in_order_and_the_queue_is_bounded(
    own_platform: Platform, alice: Client, conversation: str, database: asyncpg.Connection
) -> None:
    async def turns() -> int:
        like = f"%{conversation}/turn/%"
        rows = await database.fetch("SELECT key FROM dapr.state WHERE key LIKE $1", like)
        return len(rows)

    gate = f"queue-{conversation}"
    running = alice.reader(
        "StreamMessage",
        {"conversationId": conversation, "text": prompt(tokens=1, gate=gate).text},
    )
    first = asyncio.create_task(running.run())
    await own_platform.wait_held(gate)
    texts = [f"waiting {number}" for number in range(MAX_QUEUE)]
    sending: list[asyncio.Task[object]] = []
    for number, text in enumerate(texts, 2):
        body = {"conversationId": conversation, "text": text, "admission": "ENQUEUE"}
        sending.append(asyncio.create_task(alice.must("SendMessage", **body)))
        await wait_until(has_turns(turns, number), what="the next turn to be queued")
    full = await alice.call(
        "SendMessage", conversationId=conversation, text="one more", admission="ENQUEUE"
    )
    assert (full.status, full.code) == (429, "QUOTA_EXCEEDED")
    await own_platform.release_gate(gate)
    await asyncio.gather(first, *sending)
    asked = [each["text"] for each in await messages(alice, conversation) if each["role"] == "USER"]
    assert asked[1:] == texts
    answers = [
        each["text"] for each in await messages(alice, conversation) if each["role"] != "USER"
    ]
    assert answers[1:] == [f"You said: {text}" for text in texts]


def has_turns(turns: Callable[[], Awaitable[int]], number: int) -> Callable[[], Awaitable[bool]]:
    async def holds() -> bool:
        return await turns() == number

    return holds


@requirement("turns:disconnect")
async def test_a_turn_continues_when_its_reader_disconnects(
    own_platform: Platform, alice: Client, conversation: str
) -> None:
    gate = f"leave-{conversation}"
    said = prompt(tokens=5, gate=gate, gate_after=2)
    async with live_turn(alice, conversation, said, until_text=True) as turn:
        await own_platform.wait_held(gate)
    await own_platform.release_gate(gate)
    assert (await ended(alice, turn.ref))["status"] == "COMPLETED"
    assert (await messages(alice, conversation))[-1]["text"].split() == [
        f"token{number}" for number in range(5)
    ]


@requirement("turns:disconnect", "edge:client-gone")
async def test_a_disconnect_cancels_the_turn_if_requested(
    own_platform: Platform, alice: Client, conversation: str
) -> None:
    gate = f"hang-up-{conversation}"
    said = prompt(tokens=5, gate=gate, gate_after=2)
    async with live_turn(alice, conversation, said, until_text=True, onDisconnect="CANCEL") as turn:
        await own_platform.wait_held(gate)
    found = await ended(alice, turn.ref)
    assert (found["status"], found["cancel"]["tokensAfterCancel"]) == ("CANCELLED", 0)
    assert [call["outcome"] for call in await own_platform.model_calls(said.word)] == [
        "client_closed"
    ]
    assert (await messages(alice, conversation))[-1]["incomplete"] is True


@requirement("turns:disconnect")
async def test_cancel_on_disconnect_does_not_affect_a_reader_that_stays(
    alice: Client, conversation: str
) -> None:
    fold = await ask(alice, conversation, "hello", onDisconnect="CANCEL")
    assert fold.terminal == "run.completed"


@requirement("turns:fenced", "turns:attempt-restarted", "turns:one-terminal")
async def test_a_superseded_attempt_can_write_nothing(
    own_platform: Platform, alice: Client, conversation: str, log: EventLog
) -> None:
    gate = f"fence-{conversation}"
    said = prompt(attempts=[{"tokens": 6, "gate": gate, "gate_after": 2}, {"tokens": 6}])
    async with live_turn(alice, conversation, said, until_text=True) as turn:
        await own_platform.wait_held(gate)
        await log.release(turn.turn_id, 1, timedelta(hours=1))
        newer = await log.begin_attempt(turn.turn_id)
        assert newer is not None
        await log.append(turn.turn_id, newer.number, [NewEvent("custom", {"by": "the newer"})])
        await own_platform.release_gate(gate)

        async def gave_up() -> bool:
            return (await own_platform.model_calls(said.word))[0]["outcome"] != "open"

        await wait_until(gave_up, what="the stale attempt to stop")
        await log.release(turn.turn_id, newer.number)
        fold = await turn.rest()
    taken_over = next(e for e in fold.events if e["type"] == "custom")
    assert not [e for e in fold.events[int(taken_over["seq"]) :] if e["attempt"] == 1]
    assert fold.restarts == 1
    assert fold.text == "".join(f"token{number} " for number in range(6))
    assert fold.terminal == "run.completed"
    stored = await messages(alice, conversation)
    assert [(each["role"], each["incomplete"]) for each in stored] == [
        ("USER", False),
        ("ASSISTANT", False),
    ]
    assert stored[1]["text"] == fold.text


@requirement("turns:liveness")
async def test_a_turn_is_answered_although_its_host_died_after_admitting_it(
    own_platform: Platform, alice: Client, conversation: str, log: EventLog
) -> None:
    turn_id = f"turn_{uuid.uuid4().hex}"
    await log.open(NewStream(turn_id, TURN_STREAM, user_of(alice), conversation))
    ref = await begin_without_attempt(own_platform, conversation, turn_id)
    assert (await alice.must("GetTurn", **ref))["status"] == "RUNNING"
    assert (await ended(alice, ref, timeout=40))["status"] == "COMPLETED"
    assert (await events_of(alice, ref)).text == "You said: hello"


async def begin_without_attempt(
    platform: Platform, conversation: str, turn_id: str
) -> dict[str, str]:
    """Begin a turn in its actor only, as a host does that dies before its first attempt."""
    command = {
        "turn_id": turn_id,
        "repeatable": False,
        "model": "scripted/one",
        "request": {"conversationId": conversation, "text": "hello"},
    }
    actors = ActorCalls(platform.stack)
    actor = ("ConversationActor", conversation)
    reply = await actors.invoke("llm", actor, "begin_turn", command, timeout=10)
    await actors.close()
    assert reply["ok"]["turn"]["status"] == "RUNNING"
    return {"conversationId": conversation, "turnId": turn_id}


@requirement("turns:liveness")
async def test_a_turn_without_a_stream_can_be_cancelled_and_ends_at_its_deadline(
    own_platform: Platform, alice: Client, log: EventLog, database: asyncpg.Connection
) -> None:
    ids = [await alice.conversation() for _ in range(2)]
    turns = [
        await begin_without_attempt(own_platform, each, f"turn_{uuid.uuid4().hex}") for each in ids
    ]
    cancelled = await alice.must("CancelTurn", **turns[0])
    assert cancelled["status"] == "CANCELLED"
    assert (await events_of(alice, turns[0])).terminal == "run.cancelled"
    refused = await alice.call("SendMessage", conversationId=ids[1], text="too early")
    assert refused.code == "TURN_IN_PROGRESS"
    await pass_deadline(database, turns[1]["turnId"])
    sent = await alice.must("SendMessage", conversationId=ids[1], text="after the deadline")
    assert sent["turn"]["status"] == "COMPLETED"
    assert (await alice.must("GetTurn", **turns[1]))["status"] == "FAILED"
