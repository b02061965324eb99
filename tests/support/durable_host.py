"""A process that hosts durable work: `python -m tests.support.durable_host DATABASE VALKEY IDS`.

Each work emits one event, prints its id and waits until a test kills the process.
"""

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

from services.kit.eventlog import (
    Engine,
    EventLog,
    HostLease,
    NewEvent,
    NewStream,
    Segment,
    StreamHead,
)
from services.kit.storage.db import Database
from services.kit.storage.wake_ups import WakeUps

KIND = "test-work"


class Waiting:
    """Durable work that never ends."""

    name = KIND

    async def run(self, segment: Segment) -> None:
        """Emit one event, then wait."""
        await segment.emit([NewEvent("custom", {"attempt": segment.number})])
        print(segment.stream_id, flush=True)
        await asyncio.Event().wait()

    async def recover(self, head: StreamHead) -> bool:
        """Recover no work of other hosts."""
        return False

    async def settle(self, stream_id: str, owed: Any) -> None:
        """This work owes nothing after its end."""


async def main(database_url: str, valkey_url: str, ids: list[str]) -> None:
    """Admit the work and wait."""
    database, wake_ups, lease = Database(database_url), WakeUps(valkey_url), HostLease(database_url)
    wake_ups.start()
    await lease.start()
    log = EventLog(database, wake_ups, lease.host_id)
    engine, kind = Engine(database, log, wake_ups, lease), Waiting()
    for name in ids:
        ends = datetime.now(UTC) + timedelta(minutes=5)
        segment = await engine.admit(NewStream(name, KIND, "alice", "s", ends), [])
        assert segment is not None
        engine.begin(segment, kind.run)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3].split(",")))
