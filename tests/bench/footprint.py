"""Memory per process, and the time from a start to a completed turn."""

import time

import psutil

from tests.bench.figures import emit
from tests.support.platform import Platform


async def measure(platform: Platform) -> None:
    """Print the unique memory of each process, and of all."""
    total = 0.0
    for name in platform.stack.names:
        unique = sum(map(_unique, platform.family(name)))
        total += unique
        emit("memory", process=name, mib=round(unique / 2**20, 1))
    emit("memory", process="all", mib=round(total / 2**20, 1))


async def starts(platform: Platform) -> None:
    """Print the time from a start with existing state to a completed turn."""
    for kind in ("warm", "warm"):
        platform.stop()
        began = time.perf_counter()
        platform.start()
        healthy = time.perf_counter() - began
        await platform.until_answering()
        emit(
            "start",
            kind=kind,
            processes_ready_s=round(healthy, 1),
            first_answer_s=round(time.perf_counter() - began, 1),
        )


def _unique(process: psutil.Process) -> float:
    try:
        return process.memory_full_info().uss
    except psutil.NoSuchProcess:
        return 0.0
