"""Figures as JSON lines, and the closed loops that measure them.

An operation that fails is counted and is no latency; a figure with more than MAX_FAILED of them is refused.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import aiohttp

MAX_FAILED: Final = 0.01
BLOCKS: Final = 4
"""How often `interleaved` changes between the operations."""
FAILURES: Final = (AssertionError, RuntimeError, aiohttp.ClientError, OSError)
"""How an operation fails: refused, incomplete, or without an answer."""

Operation = Callable[[int], Awaitable[float | None]]
"""Gets its number; may return its own latency in seconds."""


class FigureRefused(Exception):
    """Too many operations failed."""


@dataclass(frozen=True, slots=True)
class Run:
    """Latencies of the operations that succeeded, the number of those that failed, and total seconds."""

    latencies: list[float]
    seconds: float
    failed: int = 0

    @property
    def rate(self) -> float:
        """Successful operations per second."""
        return len(self.latencies) / self.seconds

    def fields(self) -> dict[str, float]:
        """Printed fields: latencies in milliseconds, rate per second. Raises FigureRefused."""
        require_few_failures(self.failed, self.failed + len(self.latencies))
        return {
            "n": len(self.latencies),
            "failed": self.failed,
            "p50_ms": milliseconds(quantile(self.latencies, 0.5)),
            "p99_ms": milliseconds(quantile(self.latencies, 0.99)),
            "per_s": round(self.rate, 1),
        }

    def joined(self, other: "Run") -> "Run":
        """Both runs as one."""
        latencies, seconds = self.latencies + other.latencies, self.seconds + other.seconds
        return Run(latencies, seconds, self.failed + other.failed)


def require_few_failures(failed: int, count: int) -> None:
    """Raise FigureRefused if more than MAX_FAILED of the operations failed."""
    if not count or failed / count > MAX_FAILED:
        raise FigureRefused(f"{failed} of {count} operations failed")


def emit(figure: str, **fields: object) -> None:
    sys.stdout.write(json.dumps({"figure": figure, **fields}) + "\n")
    sys.stdout.flush()


def quantile(values: Sequence[float], share: float) -> float:
    """The quantile of the values at `share`; NaN of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


def milliseconds(seconds: float) -> float:
    """Seconds as milliseconds, to the hundredth."""
    return round(seconds * 1000, 2)


async def timed(operation: Operation, number: int) -> float | None:
    """The latency of an operation in seconds, or None if it failed, with the reason on stderr."""
    began = time.perf_counter()
    try:
        own = await operation(number)
    except FAILURES as error:
        sys.stderr.write(f"operation {number} failed: {error!r}"[:300] + "\n")
        return None
    return time.perf_counter() - began if own is None else own


async def closed_loop(operation: Operation, count: int, concurrency: int, *, first: int = 0) -> Run:
    """Run an operation `count` times, numbered from `first`."""
    numbers = iter(range(first, first + count))
    latencies: list[float] = []

    async def worker() -> None:
        for number in numbers:
            taken = await timed(operation, number)
            latencies.extend([] if taken is None else [taken])

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(concurrency)))
    return Run(latencies, time.perf_counter() - began, count - len(latencies))


async def interleaved(
    operations: Mapping[str, Operation], count: int, concurrency: int
) -> dict[str, Run]:
    """Closed loops that are compared: in turn, in blocks (A B A B …), so that a slower phase affects all."""
    runs: dict[str, Run] = {}
    size = count // BLOCKS
    for block in range(BLOCKS):
        for name, operation in operations.items():
            run = await closed_loop(operation, size, concurrency, first=block * size)
            runs[name] = runs[name].joined(run) if name in runs else run
    return runs


async def compare(
    operations: Mapping[str, Operation], baseline: str, loads: Sequence[tuple[int, int]]
) -> None:
    """Print a figure of each operation, by its name, beside the one called `baseline`, at each (concurrency, count)."""
    for concurrency, count in loads:
        runs = await interleaved(operations, count, concurrency)
        base = runs.pop(baseline).fields()
        for name, run in runs.items():
            emit(
                name,
                concurrency=concurrency,
                **run.fields(),
                baseline=baseline,
                baseline_p50_ms=base["p50_ms"],
                baseline_per_s=base["per_s"],
            )


async def paired(operations: Mapping[str, Operation], count: int) -> dict[str, Run]:
    """One call of each, in turn, `count` times: the latencies at one place of all runs are those of one round.

    A round in which one fails counts as failed for all.
    """
    rounds: list[list[float]] = []
    began = time.perf_counter()
    for number in range(count):
        taken = [await timed(operation, number) for operation in operations.values()]
        whole = [each for each in taken if each is not None]
        if len(whole) == len(taken):
            rounds.append(whole)
    seconds, failed = time.perf_counter() - began, count - len(rounds)
    columns = zip(*rounds, strict=True) if rounds else ([] for _ in operations)
    return {
        name: Run(list(column), seconds, failed)
        for name, column in zip(operations, columns, strict=True)
    }


def added(run: Run, base: Run) -> dict[str, float]:
    """What a call takes longer than the one of the same round: quantiles of the differences, of `paired` runs."""
    differences = [one - other for one, other in zip(run.latencies, base.latencies, strict=True)]
    return {
        f"added_p{share}_ms": milliseconds(quantile(differences, share / 100)) for share in (50, 99)
    }
