"""Rows and bytes of a turn in the event log, after its end and after compaction."""

from datetime import timedelta
from typing import Final

from services.contracts.llm.turns import TURN_STREAM
from services.kit.eventlog import Purge, Retention
from services.kit.storage.db import Database
from tests.bench.figures import emit
from tests.bench.turns import first_token
from tests.support.platform import Platform

TURNS: Final = 40
TABLES: Final = {
    "streams": "SELECT t FROM events.streams t WHERE owner = $1",
    "events": "SELECT t FROM events.events t JOIN events.streams s ON s.id = t.stream_id AND s.owner = $1",
    "checkpoints": "SELECT t FROM events.checkpoints t JOIN events.streams s ON s.id = t.stream_id AND s.owner = $1",
}
USER: Final = "bench-retention"


async def measure(platform: Platform) -> None:
    """Print rows and bytes per turn of 40 tokens, by table."""
    async with platform.client(USER) as client:
        conversation_id = await client.conversation()
        for _ in range(TURNS):
            await first_token(client, conversation_id)
    database = Database(platform.stack.database_url())
    await _print(database, "right after its end")
    now = timedelta(0)
    await Purge(database, [Retention(TURN_STREAM, events=now, ending=timedelta(days=30))]).run()
    await _print(database, "compacted")
    await database.close()


async def _print(database: Database, state: str) -> None:
    for table, rows in TABLES.items():
        counted = f"SELECT count(*), coalesce(sum(pg_column_size(t)), 0) FROM ({rows}) AS found(t)"
        number, size = await database.fetch_one(counted, USER)
        emit(
            "retention",
            turn=state,
            table=table,
            rows_per_turn=round(number / TURNS, 2),
            bytes_per_turn=round(size / TURNS),
        )
