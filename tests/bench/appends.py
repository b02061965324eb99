"""W1: durable appends of 400 bytes to 50 conversations, compared with a commit in the same Postgres."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
import asyncpg

from services.contracts.apps import USER_SCOPES
from services.contracts.llm.conversations import CONVERSATION_SERVICE
from tests.bench.figures import Operation, compare, interleaved
from tests.support.platform import Platform

TEXT = "x" * 400
CONVERSATIONS = 50
EDGE: Final = "W1 append 400 bytes through the edge"
SIDECARS: Final = "W1 append 400 bytes by service invocation"
COMMIT: Final = "INSERT and commit, same Postgres"


async def measure(platform: Platform) -> None:
    """Print p50 and p99 at 1 and 16, and appends per second at 16."""
    async with (
        platform.client("bench-append") as client,
        _invoked(platform) as invoke,
        _committed(platform) as commit,
    ):
        ids = [await client.conversation() for _ in range(CONVERSATIONS)]

        async def append(number: int) -> None:
            await client.must("AppendMessage", conversationId=ids[number % len(ids)], text=TEXT)

        ways = {EDGE: append, SIDECARS: invoke, COMMIT: commit}
        await interleaved(ways, 200, 4)
        await compare(ways, COMMIT, ((1, 600), (16, 4000)))


@asynccontextmanager
async def _committed(platform: Platform) -> AsyncIterator[Operation]:
    """A commit of the same text in the same Postgres."""
    pool = await asyncpg.create_pool(platform.stack.database_url(), min_size=16, max_size=16)
    await pool.execute("CREATE TABLE IF NOT EXISTS public.bench_append (id serial, body text)")

    async def commit(_: int) -> None:
        await pool.execute("INSERT INTO public.bench_append (body) VALUES ($1)", TEXT)

    yield commit
    await pool.execute("DROP TABLE public.bench_append")
    await pool.close()


@asynccontextmanager
async def _invoked(platform: Platform) -> AsyncIterator[Operation]:
    """An append from another Dapr app: through sidecars, without the edge."""
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

        yield append
