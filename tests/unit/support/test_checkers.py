"""The checkers accept correct states and name each violation."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contracts.llm.turns import TurnStatus
from tests.support.checkers import (
    LATER_STATUSES,
    check_append_log,
    check_ledger,
    check_ok_rate,
    check_seqs,
    check_set,
    check_statuses,
)
from tests.support.history import History, Operation


def append(value: str, begin: int, end: int | None) -> Operation:
    return Operation("c", "append", "k", value, begin, end)


A, B, C = append("a", 0, 10), append("b", 20, 30), append("c", 5, 25)


@pytest.mark.parametrize("final", [["a", "b", "c"], ["a", "c", "b"], ["c", "a", "b"]])
def test_a_log_in_any_real_time_order_is_accepted(final: list[str]) -> None:
    assert check_append_log(final, [A, B, C]) == []


@pytest.mark.parametrize(
    ("final", "appends", "problem"),
    [
        (["b", "a"], [A, B], "ended before"),
        (["c", "b", "a"], [A, B, C], "ended before"),
        (["a"], [A, B], "lost"),
        (["a", "a"], [A], "2 times"),
        (["a", "z"], [A], "never added"),
    ],
)
def test_a_violation_in_a_log_is_named(
    final: list[str], appends: list[Operation], problem: str
) -> None:
    (found,) = check_append_log(final, appends)
    assert problem in found


def test_an_append_of_unknown_outcome_may_be_present_or_absent() -> None:
    unknown = append("u", 0, None)
    assert check_append_log(["a"], [A, unknown]) == []
    assert check_append_log(["a", "u"], [A, unknown]) == []


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20)), max_size=30), st.randoms())
def test_a_log_ordered_by_one_instant_within_each_append_is_accepted(
    times: list[tuple[int, int]], random: object
) -> None:
    appends = [
        append(str(number), begin, begin + length) for number, (begin, length) in enumerate(times)
    ]
    at = {each.value: random.randint(each.begin, each.end) for each in appends}  # type: ignore[attr-defined]
    assert check_append_log(sorted(at, key=lambda value: at[value]), appends) == []


def test_a_set_names_lost_duplicated_and_unexpected_elements() -> None:
    adds = [append("ok", 0, 1), append("lost", 0, 1), append("maybe", 0, None)]
    assert len(check_set(["ok", "ok", "maybe", "no"], adds)) == 3
    assert check_set(["ok"], adds[:1]) == []


def test_seqs_have_neither_gap_nor_repeat() -> None:
    assert check_seqs([1, 2, 3]) == []
    assert check_seqs([1, 3])
    assert check_seqs([1, 1])


def test_a_set_names_each_kind_of_violation() -> None:
    add = append("a", 0, 1)
    assert check_set(["a", "a"], [add]) == ["'a' is there 2 times"]
    assert check_set([], [add]) == ["'a' was acknowledged and is lost"]
    assert check_set(["a", "z"], [add]) == ["'z' was never added"]


# --- statuses ---


def reads(*values: str, overlap: bool = False) -> list[Operation]:
    """Reads of one status, one after the other or all at once."""
    times = [(0, 100) if overlap else (10 * place, 10 * place + 5) for place in range(len(values))]
    return [
        Operation("c", "status", "turn", value, begin, end)
        for value, (begin, end) in zip(values, times, strict=True)
    ]


@pytest.mark.parametrize(
    "found",
    [
        (),
        ("QUEUED", "QUEUED", "RUNNING", "RUNNING", "COMPLETED", "COMPLETED"),
        ("QUEUED", "FAILED"),
        ("RUNNING", "CANCELLED", "CANCELLED"),
    ],
)
def test_a_status_that_goes_along_its_edges_is_accepted(found: tuple[str, ...]) -> None:
    assert check_statuses(reads(*found)) == []


def test_reads_at_the_same_time_may_be_in_either_order() -> None:
    assert check_statuses(reads("COMPLETED", "RUNNING", overlap=True)) == []


def test_a_read_without_an_answer_says_nothing() -> None:
    [completed, running] = reads("COMPLETED", "RUNNING")
    running.end = None
    assert check_statuses([completed, running]) == []


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (("RUNNING", "QUEUED"), "it was RUNNING and then QUEUED"),
        (("COMPLETED", "RUNNING"), "it was COMPLETED and then RUNNING"),
        (("CANCELLED", "QUEUED"), "it was CANCELLED and then QUEUED"),
        (("PAUSED",), "'PAUSED' is no status"),
    ],
)
def test_a_status_that_leaves_its_edges_is_named(found: tuple[str, ...], problem: str) -> None:
    assert check_statuses(reads(*found)) == [problem]


def test_a_second_terminal_status_is_named_even_if_read_at_the_same_time() -> None:
    ended = "it ended as COMPLETED and as FAILED"
    assert check_statuses(reads("COMPLETED", "FAILED", overlap=True)) == [ended]
    assert check_statuses(reads("COMPLETED", "FAILED")) == [
        ended,
        "it was COMPLETED and then FAILED",
    ]


def test_the_automaton_has_every_status_and_no_way_out_of_the_terminal_ones() -> None:
    assert LATER_STATUSES.keys() == set(TurnStatus)
    assert {status for status, later in LATER_STATUSES.items() if not later} == {
        status for status in TurnStatus if status.is_terminal
    }


# --- sums and rates ---


def test_a_ledger_names_each_account_whose_entries_do_not_add_up() -> None:
    assert check_ledger({"a": 3, "b": 0}, {"a": [1, 2], "b": []}) == []
    assert check_ledger({"a": 3}, {"a": [1, 1]}) == ["a: 3 booked, 2 by its entries"]
    assert check_ledger({"a": 3}, {"a": [1, 2, 1]}) == ["a: 3 booked, 4 by its entries"]
    assert check_ledger({"a": 3}, {}) == ["a: 3 booked, 0 by its entries"]
    assert check_ledger({}, {"a": [3]}) == ["a: None booked, 3 by its entries"]


def test_a_run_with_too_few_answers_or_without_attempts_is_named() -> None:
    assert check_ok_rate(2, 10) == []
    assert check_ok_rate(1, 10) == ["1 of 10 attempts were answered, under 20%"]
    assert check_ok_rate(0, 0) == ["0 of 0 attempts were answered, under 20%"]


async def test_a_history_records_acknowledged_and_unknown_outcomes_in_its_file(
    tmp_path: Path,
) -> None:
    with History(tmp_path / "history.jsonl") as history:
        async with history.operation("c1", "append", "k", "a") as operation:
            operation.ok()
        with pytest.raises(ConnectionError):
            async with history.operation("c1", "append", "k", "b"):
                raise ConnectionError
    found = history.operations("append")
    assert [(each.value, each.end is not None) for each in found] == [("a", True), ("b", False)]
    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["value"] for line in lines] == ["a", "b"]
