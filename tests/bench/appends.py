"""W1: durable appends of 400 bytes, 50 conversations round robin, beside a bare commit in the same Postgres."""

import asyncpg

from tests.bench.figures import closed_loop, emit
from tests.support.platform import Client, Platform

TEXT = "x" * 400
CONVERSATIONS = 50


async def measure(platform: Platform) -> None:
    """Print p50 and p99 at 1 and 16, and appends per second at 16."""
    async with platform.client("bench-append") as client:
        ids = [await client.conversation() for _ in range(CONVERSATIONS)]
        await _appends(client, ids, 200, 4)
        alone = await _appends(client, ids, 600, 1)
        crowd = await _appends(client, ids, 4000, 16)
    pool = await asyncpg.create_pool(platform.stack.database_url(), min_size=16, max_size=16)
    await pool.execute("CREATE TABLE IF NOT EXISTS public.bench_append (id serial, body text)")

    async def commit(_: int) -> None:
        await pool.execute("INSERT INTO public.bench_append (body) VALUES ($1)", TEXT)

    base_alone = await closed_loop(commit, 600, 1)
    base_crowd = await closed_loop(commit, 4000, 16)
    await pool.execute("DROP TABLE public.bench_append")
    await pool.close()
    for concurrency, run, base in ((1, alone, base_alone), (16, crowd, base_crowd)):
        emit(
            "W1 append 400 bytes through the edge",
            concurrency=concurrency,
            **run.fields(),
            baseline="INSERT and commit, same Postgres",
            baseline_p50_ms=base.fields()["p50_ms"],
            baseline_per_s=base.fields()["per_s"],
        )


async def _appends(client: Client, ids: list[str], count: int, concurrency: int):
    async def append(number: int) -> None:
        await client.must("AppendMessage", conversationId=ids[number % len(ids)], text=TEXT)

    return await closed_loop(append, count, concurrency)
