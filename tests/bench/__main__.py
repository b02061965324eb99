"""`poe bench [W1 W2 W3 access create growth overload retention memory start]`: figures of this machine, one JSON line each."""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path

from tests.bench import (
    access,
    appends,
    creations,
    footprint,
    growth,
    overload,
    retention,
    steps,
    turns,
)
from tests.bench.figures import emit
from tests.support.platform import Platform

OFFSET = 12_000
ALONE: dict[str, Callable[[Path], None]] = {"W2": steps.measure, "access": access.measure}
"""Those that start what they measure themselves."""
ON_PLATFORM: dict[str, Callable[[Platform], Coroutine[None, None, None]]] = {
    "W1": appends.measure,
    "W3": turns.measure,
    "create": creations.measure,
    "growth": growth.measure,
    "overload": overload.measure,
    "retention": retention.measure,
    "memory": footprint.measure,
    "start": footprint.starts,
}


def main() -> None:
    """Measure what is named, or everything."""
    wanted = sys.argv[1:] or [*ALONE, *ON_PLATFORM]
    unknown = set(wanted) - {*ALONE, *ON_PLATFORM}
    if unknown:
        raise SystemExit(f"no such figure: {', '.join(sorted(unknown))}")
    emit("machine", cores=os.cpu_count(), load=os.getloadavg()[0])
    with tempfile.TemporaryDirectory(prefix="yocaso-bench-") as folder:
        for name, alone in ALONE.items():
            if name in wanted:
                alone(Path(folder) / name)
        if set(wanted) - set(ALONE):
            _on_platform(
                Path(folder) / "platform", [name for name in ON_PLATFORM if name in wanted]
            )


def _on_platform(state: Path, names: list[str]) -> None:
    platform = Platform(state, OFFSET)
    began = time.perf_counter()
    platform.start()
    try:
        asyncio.run(platform.until_answering())
        emit("start", kind="cold", first_answer_s=round(time.perf_counter() - began, 1))
        for name in names:
            asyncio.run(ON_PLATFORM[name](platform))
    finally:
        platform.stop()


if __name__ == "__main__":
    main()
