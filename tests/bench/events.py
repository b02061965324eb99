"""Events from commit to effect, through outbox, broker and inbox."""

import asyncio
import time
from pathlib import Path
from typing import Final

import aiohttp

from services.cli.stack import Stack
from services.kit.storage.db import Database
from tests.bench.figures import emit
from tests.component.pubsub.conftest import Apps, write_files
from tests.support.port_offsets import offset_of
from tests.support.wait import wait_until

OFFSET: Final = offset_of("bench of an app")
ALONE: Final = 100
BURST: Final = 2_000
PER_CALL: Final = 50
DELAYS: Final = """
    SELECT percentile_disc(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY extract(epoch FROM e.at - o.at) * 1000)
    FROM shop.orders o JOIN ledger.entries e USING (number) WHERE number = ANY($1::int[])
"""


def measure(state: Path) -> None:
    """Print the delay of events that are published one at a time, and the rate and delay of a burst."""
    state.mkdir(parents=True)
    stack = Stack(state / "state", port_offset=OFFSET, dapr_yaml=write_files(state))
    stack.start(seconds=90)
    try:
        asyncio.run(_measure(stack))
    finally:
        stack.stop()


async def _measure(stack: Stack) -> None:
    database = Database(stack.database_url())
    async with aiohttp.ClientSession() as session:
        apps = Apps(stack, session, database)
        await apps.place(1)
        await apps.wait_entered(1)
        alone = list(range(100, 100 + ALONE))
        for number in alone:
            await apps.place(number)
            await wait_until(lambda n=number: apps.entries(n), 20, "the entry", every=0.002)
        await _emit(database, "one at a time", alone, None)
        burst = list(range(10_000, 10_000 + BURST))
        began = time.perf_counter()
        for first in range(0, BURST, PER_CALL):
            await apps.place(*burst[first : first + PER_CALL])
        await apps.wait_entered(*burst, seconds=60)
        await _emit(database, "a burst", burst, BURST / (time.perf_counter() - began))
    await database.close()


async def _emit(database: Database, kind: str, numbers: list[int], rate: float | None) -> None:
    p50, p99 = (await database.fetch_one(DELAYS, numbers))[0]
    fields = {"per_s": round(rate, 1)} if rate else {}
    emit(
        f"events, {kind}: from commit to effect",
        n=len(numbers),
        p50_ms=round(float(p50), 1),
        p99_ms=round(float(p99), 1),
        **fields,
    )
