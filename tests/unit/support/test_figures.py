"""Figures count failed operations apart, compare in turn, and take quantiles of differences."""

import pytest

from tests.bench.figures import (
    BLOCKS,
    FigureRefused,
    Run,
    added,
    closed_loop,
    interleaved,
    paired,
    quantile,
    require_few_failures,
)


async def own_latency(number: int) -> float:
    return number / 1000


async def fails_at_three(number: int) -> float:
    assert number != 3
    return number / 1000


async def test_a_failed_operation_is_no_latency() -> None:
    run = await closed_loop(fails_at_three, 5, 2)
    assert (sorted(run.latencies), run.failed) == ([0, 0.001, 0.002, 0.004], 1)
    with pytest.raises(FigureRefused, match="1 of 5"):
        run.fields()


def test_one_failure_in_a_hundred_is_tolerated_and_no_operation_is_not() -> None:
    require_few_failures(1, 100)
    for failed, count in ((2, 100), (0, 0)):
        with pytest.raises(FigureRefused):
            require_few_failures(failed, count)


async def test_a_bug_in_a_bench_is_no_failed_operation() -> None:
    async def bug(_: int) -> float:
        raise KeyError

    with pytest.raises(KeyError):
        await closed_loop(bug, 1, 1)


async def test_compared_operations_run_in_blocks_in_turn() -> None:
    order: list[str] = []

    def recorded(name: str):
        async def operation(number: int) -> float:
            order.append(name)
            return number

        return operation

    runs = await interleaved({"a": recorded("a"), "b": recorded("b")}, 2 * BLOCKS, 1)
    assert order == ["a", "a", "b", "b"] * BLOCKS
    assert runs["a"].latencies == runs["b"].latencies == list(range(2 * BLOCKS))


async def test_a_round_with_a_failure_is_left_out_of_every_run_of_its_pairs() -> None:
    runs = await paired({"base": own_latency, "other": fails_at_three}, 5)
    assert runs["base"].latencies == runs["other"].latencies == [0, 0.001, 0.002, 0.004]
    assert {run.failed for run in runs.values()} == {1}


def test_what_is_added_is_a_quantile_of_differences() -> None:
    base, slow = Run([0.001, 0.1], 1), Run([0.101, 0.001], 1)
    # The quantiles are nearly equal; the differences are 100 and -99 ms.
    assert added(slow, base) == {"added_p50_ms": 100.0, "added_p99_ms": 100.0}


def test_a_quantile_of_nothing_is_no_number() -> None:
    assert quantile([], 0.5) != quantile([], 0.5)
