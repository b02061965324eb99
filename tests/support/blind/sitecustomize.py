"""A mutant: with this folder on PYTHONPATH a process writes actor state blind, without ETags and without "must be new".

Tests start hosts with it to show that they would notice if the guard were gone; nothing in the product knows it.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from services.kit.dapr.state_postgres import PostgresStateStore
from services.kit.dapr.state_rows import StateWrite, WriteMode

_guarded = PostgresStateStore.write


async def _blind(
    self: PostgresStateStore, writes: Sequence[StateWrite], *, alone: bool = False
) -> str:
    unconditional = [replace(one, mode=WriteMode.ANY, etag="") for one in writes]
    return await _guarded(self, unconditional, alone=alone)


PostgresStateStore.write = _blind
