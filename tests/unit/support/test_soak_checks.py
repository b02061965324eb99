"""The soak's own checks accept what is right and record each violation that they claim to find."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.chaos.turns import generation
from tests.soak.caller import Caller
from tests.soak.checks import _answer_problems
from tests.soak.events import _check_published
from tests.soak.ledger import Fault, Ledger, Phase
from tests.soak.load import OwnedConversation, User
from tests.soak.turns import PROMPT_TOKENS, SoakTurn, check_model_calls
from tests.support.history import Operation
from tests.support.sse import SseEvent, StreamClient

WORDS = 3
ANSWER = generation(1, WORDS)
USAGE = {"totalTokens": PROMPT_TOKENS + WORDS}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path)
    yield ledger
    ledger.close()


def a_caller(ledger: Ledger) -> Caller:
    return Caller("ada", cast(Any, None), ledger)


def a_turn(ledger: Ledger, turn_id: str = "turn_1", text: str = ANSWER) -> SoakTurn:
    """A turn whose stream showed a text and completed."""
    stream = StreamClient(cast(Any, None), "url")
    for seq, (kind, data) in enumerate(
        [
            ("turn.started", {"turnId": turn_id}),
            ("text.delta", {"text": text}),
            ("run.completed", {}),
        ],
        1,
    ):
        event = {"seq": str(seq), "type": kind, "data": data}
        sent = SimpleNamespace(json=lambda event=event: event, event=kind, id=str(seq), data="")
        stream.fold.take(cast(SseEvent, sent))
    return SoakTurn(a_caller(ledger), "conv_1", WORDS, "text", "word", stream, "key")


def checked(ledger: Ledger, turn: SoakTurn, **fields: Any) -> list[str]:
    turn._check_status({"status": "COMPLETED", "usage": USAGE, **fields})
    return [*ledger.problems]


def test_a_completed_turn_is_accepted_and_its_usage_counted(ledger: Ledger) -> None:
    turn = a_turn(ledger)
    assert checked(ledger, turn) == []
    assert turn.usage == PROMPT_TOKENS + WORDS


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"status": "RUNNING"}, "terminal event and status differ"),
        ({"status": "CANCELLED"}, "cancelled without a request"),
        ({"status": "FAILED"}, "failed without a fault of the model"),
        ({"usage": {}}, "usage that does not add up"),
        ({"usage": {"totalTokens": WORDS}}, "usage that does not add up"),
        ({"usage": {"totalTokens": PROMPT_TOKENS + WORDS + 1}}, "usage that does not add up"),
        (
            {"usage": {"totalTokens": WORDS, "estimated": True}},
            "usage that does not add up",
        ),
    ],
)
def test_a_turn_that_is_wrong_is_recorded(
    ledger: Ledger, fields: dict[str, Any], problem: str
) -> None:
    assert problem in checked(ledger, a_turn(ledger), **fields)


def test_an_estimated_attempt_comes_on_top(ledger: Ledger) -> None:
    usage = {"totalTokens": PROMPT_TOKENS + WORDS + 20, "estimated": True}
    assert checked(ledger, a_turn(ledger), usage=usage) == []


def test_a_spliced_text_is_recorded(ledger: Ledger) -> None:
    spliced = f"{ANSWER.rpartition(' ')[0]} {generation(2, WORDS).rpartition(' ')[2]}"
    assert "spliced" in checked(ledger, a_turn(ledger, text=spliced))


def test_each_model_call_beyond_one_needs_a_fault(ledger: Ledger) -> None:
    check_model_calls(ledger, "word", 1, 100, 110)
    ledger.fault(Fault("llm", "kill", 104, 106))
    ledger.fault(Fault("valkey", "kill", 104, 106))  # ends no attempt
    check_model_calls(ledger, "word", 2, 100, 110)
    assert ledger.problems == {}
    check_model_calls(ledger, "word", 3, 100, 110)
    check_model_calls(ledger, "word", 2, 200, 210)
    assert ledger.problems == {"too many model calls": 2}


def test_answers_are_one_per_turn_as_shown_and_to_a_message(ledger: Ledger) -> None:
    owned = OwnedConversation(a_caller(ledger), "conv_1", turns=[a_turn(ledger)])
    right = {"role": "ASSISTANT", "turnId": "turn_1", "text": ANSWER}
    known = [Operation("ada", "append", "conv_1", "text", 0, 1)]
    assert _answer_problems(owned, [right], known) == []
    for rows, problem in (
        ([right, right], "2 answers"),
        ([{**right, "text": "other"}], "committed 'other'"),
        ([], "committed ''"),
        ([right, {**right, "turnId": "turn_2"}], "an answer to no message"),
    ):
        [found] = _answer_problems(owned, rows, known)
        assert problem in found


def published(ledger: Ledger, *events: tuple[str, str, dict[str, Any]]) -> dict[str, int]:
    """The problems if these events of turns are published: turn, event id, data."""
    turn = a_turn(ledger)
    turn.usage = PROMPT_TOKENS + WORDS
    owned = OwnedConversation(turn.caller, "conv_1", turns=[turn])
    user = cast(User, SimpleNamespace(conversations=[owned], caller=turn.caller))
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, event_id, data in events:
        found.setdefault(name, {})[event_id] = data
    _check_published(found, [user], ledger)
    return dict(ledger.problems)


EVENT = {"status": "COMPLETED", "usage": USAGE}


def test_a_turn_that_is_published_once_is_accepted_also_when_the_relay_repeats_it(
    ledger: Ledger,
) -> None:
    assert published(ledger, ("turn_1", "e1", EVENT), ("turn_1", "e1", EVENT)) == {}


def test_a_turn_that_is_not_published_is_recorded(ledger: Ledger) -> None:
    assert published(ledger, ("turn_2", "e1", EVENT)) == {"a turn that was not published": 1}


def test_a_turn_with_two_events_is_recorded(ledger: Ledger) -> None:
    found = published(ledger, ("turn_1", "e1", EVENT), ("turn_1", "e2", EVENT))
    assert found["a turn that was published twice"] == 1


def test_an_event_with_another_usage_is_recorded(ledger: Ledger) -> None:
    wrong = {"status": "COMPLETED", "usage": {"totalTokens": 1}}
    assert published(ledger, ("turn_1", "e1", wrong)) == {"an event with another usage": 1}


def test_the_ok_rate_is_that_of_one_phase(ledger: Ledger) -> None:
    ledger.attempt(True, count=3)
    ledger.phase = Phase.FAULTS
    ledger.attempt(False, "why", count=3)
    ledger.attempt(True)
    assert [ledger.ok_rate(phase) for phase in Phase] == [1.0, 0.25, 0.0]
