"""Cost of an append and of a first token in conversations of 10, 1,000 and 10,000 messages."""

from typing import Any

import asyncpg

from tests.bench.figures import closed_loop, emit, milliseconds, quantile
from tests.bench.turns import first_token
from tests.support.platform import Client, Platform

SIZES = (10, 1_000, 10_000)
SAMPLE = 100
TURNS = 15
TEXT = "y" * 400


async def measure(platform: Platform) -> None:
    """Print bytes of write-ahead log and time per append, and the time to the first token, by size."""
    connection = await asyncpg.connect(platform.stack.database_url())
    first: dict[str, float] = {}
    async with platform.client("bench-growth") as client:
        for size in SIZES:
            conversation_id = await client.conversation()
            await _fill(client, conversation_id, size)
            before = await _written(connection)
            run = await closed_loop(lambda _, c=conversation_id: _append(client, c), SAMPLE, 1)
            written = (await _written(connection) - before) / SAMPLE
            tokens = [await first_token(client, conversation_id) for _ in range(TURNS)]
            figures = {
                "bytes_per_append": round(written),
                "append_p50_ms": milliseconds(quantile(run.latencies, 0.5)),
                "first_token_p50_ms": milliseconds(quantile(tokens, 0.5)),
            }
            first = first or dict(figures)
            ratios = {
                f"{name}_ratio": round(value / first[name], 2) for name, value in figures.items()
            }
            emit(
                "growth",
                messages=size,
                **figures,
                **ratios,
                baseline="the conversation of 10 messages",
            )
    await connection.close()


async def _fill(client: Client, conversation_id: str, size: int) -> None:
    await closed_loop(lambda _: _append(client, conversation_id), size, min(4, size))


async def _append(client: Client, conversation_id: str) -> None:
    await client.must("AppendMessage", conversationId=conversation_id, text=TEXT)


async def _written(connection: asyncpg.Connection) -> int:
    found: Any = await connection.fetchval(
        "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"
    )
    return int(found)
