"""Cost of an append and of a first token in conversations of 10, 1,000 and 10,000 messages."""

from dataclasses import dataclass, field
from typing import Any

import asyncpg

from tests.bench.figures import Run, closed_loop, emit
from tests.bench.turns import first_token
from tests.support.platform import Client, Platform

SIZES = (10, 1_000, 10_000)
ROUNDS = 5
APPENDS = 20
TURNS = 3
"""Of each round and size."""
TEXT = "y" * 400


async def measure(platform: Platform) -> None:
    """Print bytes of write-ahead log and time per append, and the time to the first token, by size."""
    connection = await asyncpg.connect(platform.stack.database_url())
    async with platform.client("bench-growth") as client:
        samples = [_Sample(size, await client.conversation()) for size in SIZES]
        for sample in samples:
            await _fill(client, sample.conversation_id, sample.size)
        for _ in range(ROUNDS):  # in turn, so that a slower phase of the machine affects every size
            for sample in samples:
                await sample.take(client, connection)
    await connection.close()
    first = samples[0].figures()
    for sample in samples:
        figures = sample.figures()
        ratios = {f"{name}_ratio": round(value / first[name], 2) for name, value in figures.items()}
        emit(
            "growth",
            messages=sample.size,
            **figures,
            **ratios,
            baseline=f"the conversation of {SIZES[0]} messages",
        )


@dataclass
class _Sample:
    """What was measured of one conversation."""

    size: int
    conversation_id: str
    written: int = 0
    appends: Run = field(default_factory=lambda: Run([], 0))
    turns: Run = field(default_factory=lambda: Run([], 0))

    async def take(self, client: Client, connection: asyncpg.Connection) -> None:
        """Measure some appends, then some turns."""
        before = await _written(connection)
        run = await closed_loop(lambda _: _append(client, self.conversation_id), APPENDS, 1)
        self.written += await _written(connection) - before
        self.appends = self.appends.joined(run)
        run = await closed_loop(lambda _: first_token(client, self.conversation_id), TURNS, 1)
        self.turns = self.turns.joined(run)

    def figures(self) -> dict[str, float]:
        appends = self.appends.fields()
        return {
            "bytes_per_append": round(self.written / appends["n"]),
            "append_p50_ms": appends["p50_ms"],
            "first_token_p50_ms": self.turns.fields()["p50_ms"],
        }


async def _fill(client: Client, conversation_id: str, size: int) -> None:
    await closed_loop(lambda _: _append(client, conversation_id), size, min(4, size))


async def _append(client: Client, conversation_id: str) -> None:
    await client.must("AppendMessage", conversationId=conversation_id, text=TEXT)


async def _written(connection: asyncpg.Connection) -> int:
    found: Any = await connection.fetchval(
        "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"
    )
    return int(found)
