"""Overload: three times as many appends as the platform can serve, for a minute, by several users, in an open loop."""

import os
import time
from typing import Final

from tests.bench.figures import emit, milliseconds, quantile
from tests.bench.open_loop import load_of
from tests.support.platform import Platform

HEAVY_USERS: Final = 6
CONVERSATIONS: Final = 8
LIGHT_PER_S: Final = 5.0
TIMES: Final = 3.0
SECONDS: Final = float(os.environ.get("BENCH_OVERLOAD_SECONDS", "60"))
CAPACITY_SECONDS: Final = 10.0
CALM_SECONDS: Final = 15.0
LIGHT: Final = "light"
HEAVY: Final = tuple(f"heavy-{number}" for number in range(HEAVY_USERS))


async def measure(platform: Platform) -> None:
    """Print goodput, latency and fairness under overload, and the recovery time."""
    load = await load_of(platform, dict.fromkeys((*HEAVY, LIGHT), CONVERSATIONS))
    await load.closed(HEAVY, CAPACITY_SECONDS / 2, 16)
    peak = await load.closed(HEAVY, CAPACITY_SECONDS, 16)
    load.outcomes.clear()
    quiet = {LIGHT: LIGHT_PER_S}
    await load.open(CAPACITY_SECONDS, quiet)
    alone = _answered(load.outcomes.pop(LIGHT))
    flips = platform.count_unhealthy()
    heavy = dict.fromkeys(HEAVY, TIMES * peak / HEAVY_USERS)
    began = time.perf_counter()
    await load.open(SECONDS, {**heavy, **quiet})
    ended = began + SECONDS
    answered, load.outcomes = load.outcomes, {}
    light = answered.pop(LIGHT)
    light_answered = _answered(light)
    everybody = [outcome for each in answered.values() for outcome in each]
    accepted = [took for due, took, status in everybody if status == 200 and due < ended]
    in_time = sum(status == 200 and due + took < ended for due, took, status in everybody)
    others = {status for _, _, status in everybody} - {200, 503}
    await load.open(CALM_SECONDS, dict.fromkeys(heavy, peak / 2 / HEAVY_USERS))
    late = [due for each in load.outcomes.values() for due, _, status in each if status != 200]
    emit(
        "overload, appends through the edge",
        seconds=SECONDS,
        peak_per_s=round(peak, 1),
        offered_per_s=round(len(everybody) / SECONDS, 1),
        goodput_per_s=round(in_time / SECONDS, 1),
        goodput_share_of_peak=round(in_time / SECONDS / peak, 2),
        shed_share=round(sum(status == 503 for *_, status in everybody) / len(everybody), 2),
        other_statuses=sorted(others),
        accepted_p50_ms=milliseconds(quantile(accepted, 0.5)),
        accepted_p99_ms=milliseconds(quantile(accepted, 0.99)),
        light_served=round(len(light_answered) / len(light), 3),
        light_p50_ms=milliseconds(quantile(light_answered, 0.5)),
        light_p99_ms=milliseconds(quantile(light_answered, 0.99)),
        light_alone_p99_ms=milliseconds(quantile(alone, 0.99)),
        health_flips=platform.count_unhealthy() - flips,
        recovery_s=round(max(late, default=ended) - ended, 2),
    )
    load.close()


def _answered(outcomes: list[tuple[float, float, int]]) -> list[float]:
    """The latencies of the calls that succeeded: a refusal is no latency."""
    return [took for _, took, status in outcomes if status == 200]
