"""The checkers pass what is right and name what is wrong."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.checkers import (
    check_append_log,
    check_effects,
    check_ledger,
    check_seqs,
    check_set,
    check_statuses,
)
from tests.support.history import History, Operation, load, pair


def append(value: str, begin: int, end: int | None, outcome: str = "ok") -> Operation:
    return Operation("c", "append", "k", value, outcome, begin, end)  # type: ignore[arg-type]


A, B, C = append("a", 0, 10), append("b", 20, 30), append("c", 5, 25)


@pytest.mark.parametrize("final", [["a", "b", "c"], ["a", "c", "b"], ["c", "a", "b"]])
def test_a_log_in_any_order_that_time_allows_is_right(final: list[str]) -> None:
    assert check_append_log(final, [A, B, C], reads=[[], final[:1], final]) == []


@pytest.mark.parametrize(
    ("final", "appends", "reads", "problem"),
    [
        (["b", "a"], [A, B], [], "ended before"),
        (["c", "b", "a"], [A, B, C], [], "ended before"),
        (["a"], [A, B], [], "lost"),
        (["a", "a"], [A], [], "2 times"),
        (["a", "z"], [A], [], "never appended"),
        (["a"], [append("a", 0, 1, "fail")], [], "refused and is there"),
        (["a", "b"], [A, B], [["b"]], "no prefix"),
        (["a", "b"], [A, B], [["a", "b", "c"]], "no prefix"),
    ],
)
def test_a_broken_log_is_named(
    final: list[str], appends: list[Operation], reads: list[list[str]], problem: str
) -> None:
    (found,) = check_append_log(final, appends, reads)
    assert problem in found


def test_an_append_of_unknown_outcome_may_be_there_or_not() -> None:
    unknown = append("u", 0, None, "info")
    assert check_append_log(["a"], [A, unknown]) == []
    assert check_append_log(["a", "u"], [A, unknown]) == []


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20)), max_size=30), st.randoms())
def test_a_log_ordered_by_a_moment_within_each_append_is_always_right(
    times: list[tuple[int, int]], random: object
) -> None:
    appends = [
        append(str(number), begin, begin + length) for number, (begin, length) in enumerate(times)
    ]
    at = {each.value: random.randint(each.begin, each.end) for each in appends}  # type: ignore[attr-defined]
    assert check_append_log(sorted(at, key=lambda value: at[value]), appends) == []


def test_a_set_tells_lost_duplicated_unexpected_and_recovered() -> None:
    adds = [
        append("ok", 0, 1),
        append("lost", 0, 1),
        append("maybe", 0, None, "info"),
        append("no", 0, 1, "fail"),
    ]
    report = check_set(["ok", "ok", "maybe", "no"], adds)
    assert (report.lost, report.duplicated) == ({"lost"}, {"ok"})
    assert (report.unexpected, report.recovered) == ({"no"}, {"maybe"})
    assert len(report.problems) == 3
    assert check_set(["ok"], adds[:1]).problems == []


EDGES = {"running": ["completed", "cancelled"], "queued": ["running", "cancelled"]}


@pytest.mark.parametrize(
    ("seen", "wrong"),
    [
        (["queued", "queued", "running", "completed", "completed"], 0),
        (["queued", "completed"], 1),
        (["running", "completed", "cancelled"], 1),
        (["running", "completed", "running"], 2),
        (["running"], 1),
        ([], 1),
    ],
)
def test_statuses_follow_their_edges_to_one_end(seen: list[str], wrong: int) -> None:
    assert len(check_statuses(seen, EDGES, ["completed", "cancelled"])) == wrong


def test_seqs_have_neither_gap_nor_repeat() -> None:
    assert check_seqs([1, 2, 3]) == []
    assert check_seqs([1, 3])
    assert check_seqs([1, 1])


def test_a_ledger_adds_up_with_one_entry_per_key() -> None:
    assert check_ledger([("a", 5), ("b", -2)], 3, floor=0) == []
    assert len(check_ledger([("a", -1), ("a", 5)], 3, floor=0)) == 3


def test_an_effect_happens_once_and_on_request() -> None:
    assert check_effects(["a"], ["a", "b"]) == []
    assert len(check_effects(["a", "a", "z"], ["a"])) == 2


async def test_a_history_keeps_outcomes_and_survives_in_its_file(tmp_path: Path) -> None:
    with History(tmp_path / "history.jsonl") as history:
        async with history.operation("c1", "append", "k", "a") as attempt:
            attempt.ok(7)
        async with history.operation("c1", "append", "k", "b") as attempt:
            attempt.fail()
        with pytest.raises(ConnectionError):
            async with history.operation("c1", "append", "k", "c"):
                raise ConnectionError
    found = pair(load(tmp_path / "history.jsonl"))
    assert found == history.operations("append", "k")
    assert [(each.value, each.outcome, each.result) for each in found] == [
        ("a", "ok", 7),
        ("b", "fail", None),
        ("c", "info", None),
    ]
    assert found[2].end is None
    assert history.ok_rate() == pytest.approx(1 / 3)
