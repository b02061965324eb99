"""With this folder on PYTHONPATH a process writes actor state without ETag checks.

Tests start hosts with it to prove that they detect a missing guard.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from services.kit.dapr.pubsub.outbox import OutboxEvent
from services.kit.dapr.state_postgres import PostgresStateStore
from services.kit.dapr.state_rows import StateWrite, WriteMode

_guarded = PostgresStateStore.write


async def _write_unguarded(
    self: PostgresStateStore,
    writes: Sequence[StateWrite],
    *,
    events: Sequence[OutboxEvent] = (),
    exclusive: bool = False,
) -> str:
    unconditional = [replace(one, mode=WriteMode.ANY, etag="") for one in writes]
    return await _guarded(self, unconditional, events=events, exclusive=exclusive)


PostgresStateStore.write = _write_unguarded
