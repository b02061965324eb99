"""A process that hosts durable work and admits some of it: `python -m tests.support.durable_host DATABASE VALKEY IDS`.

Each work does its first step, then waits for ever. Tests kill or stop it.
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
    """Work that does not end."""

    name = KIND

    async def run(self, segment: Segment) -> None:
        """Do the first step, then wait."""
        await segment.emit([NewEvent("custom", {"attempt": segment.number})])
        print(segment.stream_id, flush=True)
        await asyncio.Event().wait()

    async def recover(self, head: StreamHead) -> bool:
        """Leave others' work alone."""
        return False

    async def settle(self, stream_id: str, owed: Any) -> None:
        """Nothing is owed."""


async def main(database_url: str, valkey_url: str, ids: list[str]) -> None:
    """Admit the works and wait."""
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
