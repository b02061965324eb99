"""Memory per process, and the time from nothing to an answered turn."""

import time

import psutil

from tests.bench.figures import emit
from tests.support.platform import Platform


async def measure(platform: Platform) -> None:
    """Print the resident memory of each process, and of all."""
    total = 0.0
    for name in platform.stack.names:
        pid = platform.stack.process(name)
        if pid is None:
            continue
        process = psutil.Process(pid)
        resident = sum(_unique(one) for one in [process, *process.children(recursive=True)])
        total += resident
        emit("memory", process=name, mib=round(resident / 2**20, 1))
    emit("memory", process="all", mib=round(total / 2**20, 1))


async def starts(platform: Platform) -> None:
    """Print how long a start takes until a turn is answered, with the state of an earlier one."""
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
