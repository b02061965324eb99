"""Failures of the model by class: which are retried, and what a reader sees."""

import asyncio
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from services.kit.eventlog import EventLog
from tests.e2e.actions import (
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
RETRYABLE_STATUSES: list[dict[str, Any]] = [
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
    platform: Platform, alice: Client, conversation: str, failure: dict[str, Any], code: str
) -> None:
    said = prompt(**failure)
    fold = await ask(alice, conversation, said.text)
    assert fold.terminal == "run.failed"
    error = fold.events[-1]["data"]["error"]
    assert (error["code"], error["isTerminal"]) == (code, True)
    assert len(await platform.model_calls(said.word)) == 1
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


@requirement("model:retry-by-class", "model:error-in-200")
@pytest.mark.parametrize("failure", RETRYABLE_STATUSES, ids=str)
async def test_a_transient_failure_before_any_text_is_retried_silently(
    platform: Platform, alice: Client, conversation: str, failure: dict[str, Any]
) -> None:
    said = prompt(attempts=[{"tokens": 6, **failure}, {"tokens": 6}])
    fold = await ask(alice, conversation, said.text)
    assert (fold.terminal, fold.text, fold.restarts) == ("run.completed", WHOLE, 0)
    assert len(await platform.model_calls(said.word)) == 2


@requirement("model:cuts", "model:error-in-200", "turns:attempt-restarted")
@pytest.mark.parametrize("failure", PASSING_AFTER_TEXT, ids=str)
async def test_text_of_a_failed_attempt_is_dropped_and_never_duplicated(
    platform: Platform, alice: Client, conversation: str, failure: dict[str, Any]
) -> None:
    gate = f"passing-{conversation}"
    failing = {"tokens": 6, "gate": gate, "gate_after": 2, **failure}
    said = prompt(attempts=[failing, {"tokens": 6}])
    async with live_turn(alice, conversation, said, until_text=True) as turn:
        await platform.wait_held(gate)
        await platform.release_gate(gate)
        fold = await turn.rest()
    assert (fold.terminal, fold.text, fold.restarts) == ("run.completed", WHOLE, 1)
    assert len(await platform.model_calls(said.word)) == 2
    stored = await messages(alice, conversation)
    assert [(each["text"], each["incomplete"]) for each in stored[1:]] == [(WHOLE, False)]


@requirement("model:retry-by-class")
@pytest.mark.parametrize("wanted", ["2", "date:3"])
async def test_a_retry_waits_for_retry_after(
    platform: Platform, alice: Client, conversation: str, wanted: str
) -> None:
    said = prompt(status=429, retry_after=wanted, fail_times=1, tokens=2)
    sent = await alice.must("SendMessage", conversationId=conversation, text=said.text)
    assert sent["turn"]["attempts"] == 2
    first, second = await platform.model_calls(said.word)
    assert second["opened_at"] - first["opened_at"] >= 1.9


@requirement("model:terminal-rule", "model:cuts", "turns:bounds")
async def test_a_lasting_failure_fails_the_turn_after_a_bounded_number_of_attempts(
    platform: Platform, alice: Client
) -> None:
    async def fails(failure: dict[str, Any], code: str) -> None:
        said = prompt(**failure)
        conversation = await alice.conversation()
        fold = await ask(alice, conversation, said.text)
        assert fold.terminal == "run.failed", failure
        assert fold.events[-1]["data"]["error"]["code"] == code, failure
        assert len(await platform.model_calls(said.word)) == MODEL_ATTEMPTS, failure
        stored = (await messages(alice, conversation))[1:]
        assert [(each["text"], each["incomplete"]) for each in stored] == (
            [(fold.text, True)] if fold.text else []
        ), failure

    await asyncio.gather(*(fails(failure, code) for failure, code in LASTING))


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
    platform: Platform, alice: Client, conversation: str, wanted: dict[str, int], sent: int
) -> None:
    said = prompt(tokens=1)
    await alice.must("SendMessage", conversationId=conversation, text=said.text, **wanted)
    [call] = await platform.model_calls(said.word)
    assert call["max_tokens"] == sent


@requirement("turns:bounds")
async def test_a_turn_past_its_deadline_fails(
    platform: Platform,
    alice: Client,
    conversation: str,
    log: EventLog,
    database: asyncpg.Connection,
) -> None:
    gate = f"late-{conversation}"
    said = prompt(tokens=3, gate=gate, gate_after=1)
    async with live_turn(alice, conversation, said, until_text=True) as turn:
        await platform.wait_held(gate)
        await log.release(turn.turn_id, 1, timedelta(hours=1))
        newer = await log.begin_attempt(turn.turn_id)
        assert newer is not None
        await pass_deadline(database, turn.turn_id)
        await platform.release_gate(gate)
        await log.release(turn.turn_id, newer.number)
    found = await ended(alice, turn.ref, timeout=30)
    assert (found["status"], found["error"]["code"]) == ("FAILED", "DEADLINE_EXCEEDED")
    assert (await events_of(alice, turn.ref)).terminal == "run.failed"
