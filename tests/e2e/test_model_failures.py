"""Failures of the model by class: which are retried, and what a reader sees."""

import asyncio
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from services.kit.eventlog import EventLog
from tests.e2e.actions import (
    Prompt,
    ask,
    ended,
    events_of,
    live_turn,
    messages,
    pass_deadline,
    prompt,
)
from tests.requirements import requirement
from tests.support.platform import Client, Platform
from tests.support.sse import Fold

pytestmark = pytest.mark.usefixtures("own_platform")  # the model is scripted

MODEL_ATTEMPTS = 5
"""One attempt by the host that admitted the turn and four by the workflow."""
WHOLE = "".join(f"token{number} " for number in range(6))

FINAL: list[tuple[dict[str, Any], str]] = [
    ({"status": 400}, "INVALID_ARGUMENT"),
    ({"status": 401}, "FAILED_PRECONDITION"),
    ({"status": 402}, "BUDGET_EXCEEDED"),
    ({"status": 403}, "CONTENT_FILTERED"),
    ({"status": 404}, "MODEL_INVALID"),
    ({"status": 413}, "CONTEXT_LENGTH_EXCEEDED"),
    ({"status": 400, "message": "maximum context length is 8"}, "CONTEXT_LENGTH_EXCEEDED"),
    ({"error_body": True, "error_code": 402}, "BUDGET_EXCEEDED"),
    ({"tokens": 4, "error_after": 2, "error_code": 403}, "CONTENT_FILTERED"),
    ({"tokens": 4, "finish": "content_filter"}, "CONTENT_FILTERED"),
]
RETRYABLE: list[dict[str, Any]] = [
    {"status": 429},
    {"status": 503},
    {"status": 500},
    {"error_body": True, "error_code": 502},
    {"raw": "html"},
    {"raw": "empty"},
]
PASSING_AFTER_TEXT: list[dict[str, Any]] = [
    {"error_after": 3, "error_code": 502},
    {"error_after": 3, "error_code": 429},
    {"cut": "fin", "cut_after": 3},
    {"cut": "rst", "cut_after": 3},
    {"cut": "fin", "cut_after": 3, "framing": "close"},
]
RETRY_AFTER = ["2", "date:3"]
LASTING: list[tuple[dict[str, Any], str]] = [
    ({"status": 503}, "MODEL_UNAVAILABLE"),
    ({"status": 429}, "RATE_LIMITED"),
    ({"tokens": 6, "finish": None}, "STREAM_INCOMPLETE"),
    ({"tokens": 6, "finish": None, "done": False, "usage": False}, "STREAM_INCOMPLETE"),
    ({"tokens": 6, "done": False, "usage": False}, "STREAM_INCOMPLETE"),
    ({"tokens": 6, "cut": "rst", "cut_after": 2}, "STREAM_INCOMPLETE"),
    ({"tokens": 6, "error_after": 2, "error_code": 500}, "UPSTREAM_ERROR"),
]


@requirement("model:retry-by-class", "model:error-in-200", "turns:one-terminal")
@pytest.mark.parametrize(("failure", "code"), FINAL, ids=lambda value: str(value)[:50])
async def test_a_permanent_failure_fails_the_turn_without_a_retry(
    own_platform: Platform, alice: Client, conversation: str, failure: dict[str, Any], code: str
) -> None:
    said = prompt(**failure)
    fold = await ask(alice, conversation, said.text)
    assert fold.terminal == "run.failed"
    error = fold.events[-1]["data"]["error"]
    assert (error["code"], error["isTerminal"]) == (code, True)
    assert len(await own_platform.model_calls(said.word)) == 1
    ref = {"conversationId": conversation, "turnId": fold.events[0]["data"]["turnId"]}
    turn = await alice.must("GetTurn", **ref)
    assert (turn["status"], turn["error"]) == ("FAILED", error)
    stored = await messages(alice, conversation)
    assert stored[0]["text"] == said.text
    assert [(each["text"], each["incomplete"]) for each in stored[1:]] == (
        [(fold.text, True)] if fold.text else []
    )
    assert (await ask(alice, conversation, "and now?")).terminal == "run.completed"


@requirement("model:error-in-200")
async def test_send_message_answers_with_the_turns_error(alice: Client, conversation: str) -> None:
    said = prompt(status=402, message="no credit")
    answer = await alice.call("SendMessage", conversationId=conversation, text=said.text)
    assert (answer.status, answer.code) == (402, "BUDGET_EXCEEDED")
    details = answer.body["error"]["details"]
    assert details["modelError"]["model"] == "scripted/one"
    assert details["upstreamError"]["statusCode"] == 402


@dataclass(frozen=True, slots=True)
class Tried:
    """A turn whose model failed: its end, its model calls and the answers that were stored."""

    fold: Fold
    calls: list[dict[str, Any]]
    stored: list[tuple[str, bool]]


async def tried(platform: Platform, client: Client, said: Prompt, gate: str = "") -> Tried:
    """Stream a turn to its end; a model that waits at `gate` goes on when text was shown."""
    conversation = await client.conversation()
    async with live_turn(client, conversation, said, until_text=bool(gate)) as turn:
        if gate:
            await platform.wait_held(gate)
            await platform.release_gate(gate)
        fold = await turn.rest()
    calls = await platform.model_calls(said.word)
    stored = (await messages(client, conversation))[1:]
    return Tried(fold, calls, [(each["text"], each["incomplete"]) for each in stored])


async def transient_failures(own_platform: Platform) -> list[Tried]:
    """Turns whose first attempt fails before any text."""
    async with own_platform.client(f"patient-{uuid.uuid4().hex[:8]}") as client:
        said = [prompt(attempts=[{"tokens": 6, **each}, {"tokens": 6}]) for each in RETRYABLE]
        return await asyncio.gather(*(tried(own_platform, client, each) for each in said))


@requirement("model:retry-by-class", "model:error-in-200")
@pytest.mark.waits(begin=transient_failures)
@pytest.mark.parametrize("failure", RETRYABLE, ids=str)
async def test_a_transient_failure_before_any_text_is_retried_silently(
    waited: list[Tried], failure: dict[str, Any]
) -> None:
    turn = waited[RETRYABLE.index(failure)]
    assert (turn.fold.terminal, turn.fold.text) == ("run.completed", WHOLE)
    assert (turn.fold.restarts, len(turn.calls)) == (0, 2)


async def failures_after_text(own_platform: Platform) -> list[Tried]:
    """Turns whose first attempt fails after it has shown text."""
    async with own_platform.client(f"patient-{uuid.uuid4().hex[:8]}") as client:

        async def fails(failure: dict[str, Any]) -> Tried:
            gate = f"passing-{uuid.uuid4().hex}"
            failing = {"tokens": 6, "gate": gate, "gate_after": 2, **failure}
            said = prompt(attempts=[failing, {"tokens": 6}])
            return await tried(own_platform, client, said, gate)

        return await asyncio.gather(*map(fails, PASSING_AFTER_TEXT))


@requirement("model:cuts", "model:error-in-200", "turns:attempt-restarted")
@pytest.mark.waits(begin=failures_after_text)
@pytest.mark.parametrize("failure", PASSING_AFTER_TEXT, ids=str)
async def test_text_of_a_failed_attempt_is_dropped_and_never_duplicated(
    waited: list[Tried], failure: dict[str, Any]
) -> None:
    turn = waited[PASSING_AFTER_TEXT.index(failure)]
    assert (turn.fold.terminal, turn.fold.text) == ("run.completed", WHOLE)
    assert (turn.fold.restarts, len(turn.calls)) == (1, 2)
    assert turn.stored == [(WHOLE, False)]


async def retries_after(own_platform: Platform) -> list[Tried]:
    """Turns whose model says when to try again."""
    async with own_platform.client(f"patient-{uuid.uuid4().hex[:8]}") as client:
        said = [
            prompt(status=429, retry_after=each, fail_times=1, tokens=2) for each in RETRY_AFTER
        ]
        return await asyncio.gather(*(tried(own_platform, client, each) for each in said))


@requirement("model:retry-by-class")
@pytest.mark.waits(begin=retries_after)
@pytest.mark.parametrize("wanted", RETRY_AFTER)
async def test_a_retry_waits_for_retry_after(waited: list[Tried], wanted: str) -> None:
    turn = waited[RETRY_AFTER.index(wanted)]
    assert turn.fold.terminal == "run.completed"
    first, second = turn.calls
    assert second["opened_at"] - first["opened_at"] >= 1.9


async def lasting_failures(own_platform: Platform) -> list[Tried]:
    """Turns that fail at every attempt; the workflow waits longer and longer between them."""
    async with own_platform.client(f"patient-{uuid.uuid4().hex[:8]}") as client:
        said = [prompt(**failure) for failure, _ in LASTING]
        return await asyncio.gather(*(tried(own_platform, client, each) for each in said))


@requirement("model:terminal-rule", "model:cuts", "turns:bounds")
@pytest.mark.waits(begin=lasting_failures)
async def test_a_lasting_failure_fails_the_turn_after_a_bounded_number_of_attempts(
    waited: list[Tried],
) -> None:
    for turn, (failure, code) in zip(waited, LASTING, strict=True):
        assert turn.fold.terminal == "run.failed", failure
        assert turn.fold.events[-1]["data"]["error"]["code"] == code, failure
        assert len(turn.calls) == MODEL_ATTEMPTS, failure
        assert turn.stored == ([(turn.fold.text, True)] if turn.fold.text else []), failure


@requirement("model:terminal-rule")
@pytest.mark.parametrize("ending", [{"done": False}, {"usage": False}, {"finish": "length"}])
async def test_an_answer_is_complete_with_a_finish_reason_and_usage_or_done(
    alice: Client, conversation: str, ending: dict[str, Any]
) -> None:
    text = prompt(tokens=6, **ending).text
    sent = await alice.must("SendMessage", conversationId=conversation, text=text)
    assert sent["turn"]["status"] == "COMPLETED"
    assert sent["message"]["text"] == WHOLE
    assert sent["message"]["incomplete"] is (ending.get("finish") == "length")


@requirement("model:chunk-boundaries")
@pytest.mark.parametrize("crlf", [False, True])
async def test_an_answer_sent_byte_by_byte_parses_to_the_same_text(
    alice: Client, conversation: str, crlf: bool
) -> None:
    whole = await ask(alice, conversation, prompt(tokens=16, unicode=True).text)
    split = prompt(tokens=16, unicode=True, split_bytes=1, crlf=crlf, comments=3)
    assert (await ask(alice, conversation, split.text)).text == whole.text


@requirement("turns:bounds")
@pytest.mark.parametrize(("wanted", "sent"), [({"maxOutputTokens": 77}, 77), ({}, 4096)])
async def test_the_token_limit_is_sent_to_the_model(
    own_platform: Platform, alice: Client, conversation: str, wanted: dict[str, int], sent: int
) -> None:
    said = prompt(tokens=1)
    await alice.must("SendMessage", conversationId=conversation, text=said.text, **wanted)
    [call] = await own_platform.model_calls(said.word)
    assert call["max_tokens"] == sent


@requirement("turns:bounds")
async def test_a_turn_past_its_deadline_fails(
    own_platform: Platform,
    alice: Client,
    conversation: str,
    log: EventLog,
    database: asyncpg.Connection,
) -> None:
    gate = f"late-{conversation}"
    said = prompt(tokens=3, gate=gate, gate_after=1)
    async with live_turn(alice, conversation, said, until_text=True) as turn:
        await own_platform.wait_held(gate)
        await log.release(turn.turn_id, 1, timedelta(hours=1))
        newer = await log.begin_attempt(turn.turn_id)
        assert newer is not None
        await pass_deadline(database, turn.turn_id)
        await own_platform.release_gate(gate)
        await log.release(turn.turn_id, newer.number)
    found = await ended(alice, turn.ref, timeout=30)
    assert (found["status"], found["error"]["code"]) == ("FAILED", "DEADLINE_EXCEEDED")
    assert (await events_of(alice, turn.ref)).terminal == "run.failed"
