"""W1: durable appends of 400 bytes to 50 conversations, compared with a commit in the same Postgres."""

from typing import Any

import aiohttp
import asyncpg

from services.contracts.apps import USER_SCOPES
from services.contracts.llm.conversations import CONVERSATION_SERVICE
from tests.bench.figures import Run, closed_loop, emit
from tests.support.platform import Client, Platform

TEXT = "x" * 400
CONVERSATIONS = 50


async def measure(platform: Platform) -> None:
    """Print p50 and p99 at 1 and 16, and appends per second at 16."""
    async with platform.client("bench-append") as client:
        ids = [await client.conversation() for _ in range(CONVERSATIONS)]
        await _appends(client, ids, 200, 4)
        single = await _appends(client, ids, 600, 1)
        concurrent = await _appends(client, ids, 4000, 16)
        invoked = await _invoked(platform)
    pool = await asyncpg.create_pool(platform.stack.database_url(), min_size=16, max_size=16)
    await pool.execute("CREATE TABLE IF NOT EXISTS public.bench_append (id serial, body text)")

    async def commit(_: int) -> None:
        await pool.execute("INSERT INTO public.bench_append (body) VALUES ($1)", TEXT)

    base_single = await closed_loop(commit, 600, 1)
    base_concurrent = await closed_loop(commit, 4000, 16)
    await pool.execute("DROP TABLE public.bench_append")
    await pool.close()
    edge = ((1, single, base_single), (16, concurrent, base_concurrent))
    sidecar = ((1, invoked[0], base_single), (16, invoked[1], base_concurrent))
    for way, concurrency, run, base in (
        *(("through the edge", *each) for each in edge),
        *(("by service invocation", *each) for each in sidecar),
    ):
        emit(
            f"W1 append 400 bytes {way}",
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


async def _invoked(platform: Platform) -> tuple[Run, Run]:
    """The same from another Dapr app: through sidecars, without the edge."""
    stack = platform.stack
    url = f"{stack.url('edge-daprd')}/v1.0/invoke/llm/method/{CONVERSATION_SERVICE.name}/"
    headers = {
        "dapr-api-token": stack.api_token("edge"),
        "x-user-id": "bench-invoke",
        "x-scopes": " ".join(USER_SCOPES),
    }
    async with aiohttp.ClientSession(url, headers=headers) as session:

        async def call(method: str, body: dict[str, str]) -> Any:
            async with session.post(method, json=body) as reply:
                assert reply.status == 200, await reply.text()
                return await reply.json()

        ids = [
            (await call("CreateConversation", {}))["conversationId"] for _ in range(CONVERSATIONS)
        ]

        async def append(number: int) -> None:
            named = ids[number % len(ids)]
            await call("AppendMessage", {"conversationId": named, "text": TEXT})

        return await closed_loop(append, 600, 1), await closed_loop(append, 4000, 16)
