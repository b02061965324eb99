"""Memory and file descriptors of each process, compared before and after the faults."""

import asyncio
import time
from dataclasses import dataclass
from typing import Final

import psutil

from tests.soak.ledger import Ledger
from tests.support.platform import Platform

SETTLE_SECONDS: Final = 60.0
GROWTH: Final = 1.5
SLACK_MIB: Final = 48.0
FILES_GROWTH: Final = 1.25
SLACK_FILES: Final = 48


@dataclass(frozen=True, slots=True)
class Footprint:
    """Unique memory and open files of a process and its children."""

    mib: float
    files: int

    def exceeds(self, before: "Footprint") -> bool:
        """Whether this is more than an idle process varies."""
        return (
            self.mib > before.mib * GROWTH + SLACK_MIB
            or self.files > before.files * FILES_GROWTH + SLACK_FILES
        )


async def footprints(platform: Platform) -> dict[str, Footprint]:
    """The footprint of each process of the platform."""
    return await asyncio.to_thread(_measure, platform)


def _measure(platform: Platform) -> dict[str, Footprint]:
    found: dict[str, Footprint] = {}
    for name in platform.stack.names:
        memory, files = 0.0, 0
        if not (family := platform.family(name)):
            continue
        for each in family:
            try:
                memory += each.memory_full_info().uss / 2**20
                files += each.num_fds()
            except psutil.NoSuchProcess:
                continue
        found[name] = Footprint(round(memory, 1), files)
    return found


async def check_footprints(
    platform: Platform, before: dict[str, Footprint], ledger: Ledger
) -> dict[str, Footprint]:
    """Wait until every process is back near its earlier footprint, and record those that are not."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        after = await footprints(platform)
        grown = {
            name: found
            for name, found in after.items()
            if name in before and found.exceeds(before[name])
        }
        if not grown or time.monotonic() > deadline:
            break
        await asyncio.sleep(2)
    for name, found in grown.items():
        ledger.problem("a process that has grown", f"{name}: {before[name]}, now {found}")
    return after
