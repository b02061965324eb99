"""Another session of Postgres locks the tables of the state store and of the event log."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
import pytest

from services.contracts.apps import APPS
from services.kit.manifest import Language
from services.kit.storage.db import POOL_SIZE
from tests.chaos.turns import MIDDLE, ObservedTurn, next_turn_works, script
from tests.faults.load import Load
from tests.requirements import requirement
from tests.support.platform import Client, Platform
from tests.support.retries import RECOVERY_SECONDS
from tests.support.wait import wait_until

pytestmark = pytest.mark.long

LOCKED_SECONDS: Final = 25.0
WRITERS: Final = 40
TABLES: Final = """
SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
WHERE schemaname = 'events' OR (schemaname, tablename) = ('dapr', 'state')
"""
SESSIONS: Final = """
SELECT count(*) AS open, count(*) FILTER (WHERE wait_event_type = 'Lock') AS waiting
FROM pg_stat_activity WHERE backend_type = 'client backend'
"""
APP_SESSIONS: Final = 2 * POOL_SIZE + 2
"""Of an app: two pools, its host lease and its listener."""
OTHER_SESSIONS: Final = 10
"""Of a sidecar, and of OpenFGA, by their settings."""
MAX_SESSIONS: Final = (
    sum(APP_SESSIONS + OTHER_SESSIONS for app in APPS if app.language is Language.PYTHON)
    + OTHER_SESSIONS
    + 2
)


@requirement("chaos:locks", "turns:one-terminal", "events:gap-free")
async def test_locked_tables_delay_calls_and_lose_nothing(
    platform: Platform, alice: Client
) -> None:
    gate = uuid.uuid4().hex
    held = await ObservedTurn.begin(alice, script(gate=gate, gate_after=MIDDLE))
    await held.shows(MIDDLE)
    async with Load.running(alice, WRITERS) as load:
        async with _locked(platform) as sessions:
            since = time.monotonic()
            await platform.release_gate(gate)  # the turn goes on against locked tables
            await wait_until(
                lambda: time.monotonic() >= since + LOCKED_SECONDS, LOCKED_SECONDS + 10, every=0.5
            )
            assert load.succeeded("AppendMessage", since, time.monotonic()) == []
            assert (await sessions())["waiting"] > 0
            open_sessions = (await sessions())["open"]
        async with asyncio.timeout(RECOVERY_SECONDS):
            await held.ended()
    assert open_sessions <= MAX_SESSIONS
    assert await load.find_problems() == []
    assert await held.problems() == []
    await load.stay_steady()
    await next_turn_works(held)


@asynccontextmanager
async def _locked(platform: Platform) -> AsyncIterator[Any]:
    """Hold the locks during the block; yields a reader of the numbers of sessions."""
    locking, watching = [await asyncpg.connect(platform.stack.database_url()) for _ in range(2)]
    try:
        tables = [row[0] for row in await locking.fetch(TABLES)]
        assert "dapr.state" in tables
        async with locking.transaction():
            # In a deadlock the session whose timeout is shorter is ended: a platform's session, which retries.
            await locking.execute("SET LOCAL deadlock_timeout = '60s'")
            await locking.execute(f"LOCK TABLE {', '.join(tables)} IN ACCESS EXCLUSIVE MODE")
            yield lambda: watching.fetchrow(SESSIONS)
    finally:
        await locking.close()
        await watching.close()
