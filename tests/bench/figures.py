"""Figures as JSON lines, and the closed loop that measures them."""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Run:
    """Result of a closed loop: latencies and total seconds."""

    latencies: list[float]
    seconds: float

    @property
    def rate(self) -> float:
        """Operations per second."""
        return len(self.latencies) / self.seconds

    def fields(self) -> dict[str, float]:
        """Printed fields: latencies in milliseconds, rate per second."""
        return {
            "n": len(self.latencies),
            "p50_ms": milliseconds(quantile(self.latencies, 0.5)),
            "p99_ms": milliseconds(quantile(self.latencies, 0.99)),
            "per_s": round(self.rate, 1),
        }


def emit(figure: str, **fields: object) -> None:
    sys.stdout.write(json.dumps({"figure": figure, **fields}) + "\n")
    sys.stdout.flush()


def quantile(values: Sequence[float], share: float) -> float:
    """The quantile of the values at `share`."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def milliseconds(seconds: float) -> float:
    """Seconds as milliseconds, to the hundredth."""
    return round(seconds * 1000, 2)


async def closed_loop(
    operation: Callable[[int], Awaitable[float | None]], count: int, concurrency: int
) -> Run:
    """Run `operation(i)` `count` times; it may return its own latency in seconds."""
    numbers = iter(range(count))
    latencies: list[float] = []

    async def worker() -> None:
        for number in numbers:
            began = time.perf_counter()
            own = await operation(number)
            latencies.append(time.perf_counter() - began if own is None else own)

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(concurrency)))
    return Run(latencies, time.perf_counter() - began)
