"""W2: three trivial durable steps, compared with three commits in the same Postgres."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp
import asyncpg

from services.cli.stack import Stack
from tests.bench.figures import Operation, compare, interleaved
from tests.support.port_offsets import offset_of
from tests.support.wait import wait_until

OFFSET = offset_of("bench of an app")
APP = "workflows"
KINDS = {
    "three": "one call",
    "activities": "three activities",
    "waits": "an event and a when_all of three",
}
COMMITS: Final = "three commits, same Postgres"
TEMPLATE = Path(__file__).parent / "steps.yaml"


def measure(state: Path) -> None:
    """Print p50 and p99 at 1 and executions per second at 16, as one call of `DurableWork` and as activities."""
    stack = Stack(state, port_offset=OFFSET, dapr_yaml=TEMPLATE)
    stack.start(seconds=90)
    try:
        asyncio.run(_measure(stack))
    finally:
        stack.stop()


async def _measure(stack: Stack) -> None:
    headers = {"dapr-api-token": stack.app_token(APP)}
    async with (
        aiohttp.ClientSession(stack.url(APP), headers=headers) as session,
        _commits(stack) as commits,
    ):

        async def run(path: str) -> None:
            async with session.post(path, json={"value": 1}) as reply:
                assert reply.status == 200, await reply.text()

        async def answers() -> bool:
            async with session.post("/activities") as reply:
                return reply.status == 200

        await wait_until(answers, 60, "the first workflow")
        ways: dict[str, Operation] = {
            f"W2 three durable steps as {title}": lambda _, k=kind: run(f"/{k}")
            for kind, title in KINDS.items()
        }
        ways[COMMITS] = commits
        await interleaved(ways, 20, 1)
        await compare(ways, COMMITS, ((1, 152), (16, 480)))


@asynccontextmanager
async def _commits(stack: Stack) -> AsyncIterator[Operation]:
    """Three commits in the same Postgres."""
    pool = await asyncpg.create_pool(stack.database_url(), min_size=16, max_size=16)
    await pool.execute("CREATE TABLE IF NOT EXISTS public.bench_steps (id serial, body text)")

    async def three(_: int) -> None:
        for _ in range(3):
            await pool.execute("INSERT INTO public.bench_steps (body) VALUES ('step')")

    yield three
    await pool.close()
