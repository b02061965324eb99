"""The displayed answer depends only on the events, wherever the stream was cut."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.cli.chat.transcript import ScreenUpdate, Transcript


def an_event(seq: int, kind: str, **data: Any) -> dict[str, Any]:
    return {"seq": str(seq), "type": kind, "attempt": 1, "data": data}


TURN = [
    an_event(1, "run.started", turnId="turn_1"),
    an_event(2, "text.delta", text="Hel"),
    an_event(3, "text.delta", text="lo"),
    an_event(4, "attempt.restarted", fromSeq=3),
    an_event(5, "text.delta", text="p is"),
    an_event(6, "text.delta", text=" here"),
    an_event(7, "run.completed", finishReason="stop"),
]


def test_a_restart_removes_the_text_from_its_seq_on() -> None:
    transcript = Transcript()
    updates = [transcript.apply(event) for event in TURN[:4]]
    assert updates[-1] == ScreenUpdate("Hel", restarted=True)
    assert transcript.text == "Hel"


def test_a_restart_before_any_text_displays_nothing() -> None:
    transcript = Transcript()
    assert transcript.apply(an_event(1, "attempt.restarted", fromSeq=2)) == ScreenUpdate()


def test_a_failure_has_a_one_line_error() -> None:
    transcript = Transcript()
    transcript.apply(
        an_event(1, "run.failed", error={"code": "UPSTREAM_ERROR", "message": "The model is away."})
    )
    assert transcript.is_over
    assert transcript.error == "UPSTREAM_ERROR: The model is away."


@given(cuts=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=6))
def test_streams_cut_and_resumed_anywhere_give_the_same_text(cuts: list[tuple[int, int]]) -> None:
    transcript = Transcript()
    for begin, end in cuts:
        if begin <= transcript.last_seq:
            for event in TURN[begin:end]:
                transcript.apply(event)
    for event in TURN[transcript.last_seq :]:
        transcript.apply(event)
    assert transcript.text == "Help is here"
    assert transcript.outcome == "run.completed"
    assert transcript.turn_id == "turn_1"
