"""The checkers accept correct states and name each violation."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.checkers import check_append_log, check_seqs, check_set
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
