"""`poe bench [W1 W2 W3 W6 open-loop access create events growth overload retention memory start]`: figures of this machine, one JSON line each."""

import argparse
import asyncio
import os
import resource
import tempfile
import time
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Final

from tests.bench import (
    access,
    appends,
    creations,
    events,
    footprint,
    growth,
    open_loop,
    overload,
    retention,
    steps,
    streams,
    turns,
)
from tests.bench.figures import FigureRefused, emit
from tests.support.platform import Platform
from tests.support.port_offsets import offset_of

OFFSET = offset_of("bench")
STANDALONE: dict[str, Callable[[Path], None]] = {
    "W2": steps.measure,
    "access": access.measure,
    "events": events.measure,
}
"""Benches that start their own processes."""
Measure = Callable[[Platform], Coroutine[None, None, None]]
W6: Final = "W6"
OPEN_LOOP: Final = "open-loop"
ON_PLATFORM: dict[str, Measure] = {
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
    """Run the named benches, or all except W6 and the open loop, whose sizes are options; exit code 1 for a refused figure."""
    names = [*STANDALONE, *ON_PLATFORM]
    parser = argparse.ArgumentParser(prog="poe bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="|".join([*names, W6, OPEN_LOOP]))
    sizes = streams.Sizes()
    parser.add_argument("--turns", type=int, default=sizes.turns, help="W6: open turns")
    parser.add_argument(
        "--readers", type=int, default=sizes.readers, help="W6: readers of the turns"
    )
    parser.add_argument("--seconds", type=float, help="W6, open-loop: duration")
    arrivals = open_loop.Arrivals()
    parser.add_argument("--rate", type=float, default=arrivals.rate, help="open-loop: calls per s")
    chosen = parser.parse_args()
    wanted = chosen.names or names
    unknown = set(wanted) - {*names, W6, OPEN_LOOP}
    if unknown:
        parser.error(f"no such figure: {', '.join(sorted(unknown))}")
    _raise_file_limit()
    sizes = streams.Sizes(chosen.turns, chosen.readers, chosen.seconds or sizes.seconds)
    arrivals = open_loop.Arrivals(chosen.rate, chosen.seconds or arrivals.seconds)
    on_platform = {
        **ON_PLATFORM,
        W6: partial(streams.measure, sizes=sizes),
        OPEN_LOOP: partial(open_loop.measure, arrivals=arrivals),
    }
    emit("machine", cores=os.cpu_count(), load=os.getloadavg()[0])
    with tempfile.TemporaryDirectory(prefix="yocaso-bench-") as folder:
        for name, bench in STANDALONE.items():
            if name in wanted:
                bench(Path(folder) / name)
        if set(wanted) - set(STANDALONE):
            measures = [measure for name, measure in on_platform.items() if name in wanted]
            _on_platform(Path(folder) / "platform", measures)


def _raise_file_limit() -> None:
    """Raise the limit of open files to its maximum; the platform's processes inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _on_platform(state: Path, measures: list[Measure]) -> None:
    platform = Platform(state, OFFSET)
    began = time.perf_counter()
    platform.start()
    try:
        asyncio.run(platform.until_answering())
        emit("start", kind="cold", first_answer_s=round(time.perf_counter() - began, 1))
        for measure in measures:
            asyncio.run(measure(platform))
    finally:
        platform.stop()


if __name__ == "__main__":
    try:
        main()
    except FigureRefused as refused:
        raise SystemExit(f"a figure is refused: {refused}") from None
