"""W2: three trivial durable steps, compared with three commits in the same Postgres."""

import asyncio
from pathlib import Path

import aiohttp
import asyncpg

from services.cli.stack import Stack
from tests.bench.figures import Run, closed_loop, emit
from tests.support.wait import wait_until

OFFSET = 14_000
APP = "workflows"
KINDS = {
    "three": "one call",
    "activities": "three activities",
    "waits": "an event and a when_all of three",
}
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
    base = await _commits(stack)
    headers = {"dapr-api-token": stack.app_token(APP)}
    async with aiohttp.ClientSession(stack.url(APP), headers=headers) as session:

        async def run(path: str) -> None:
            async with session.post(path, json={"value": 1}) as reply:
                assert reply.status == 200, await reply.text()

        async def answers() -> bool:
            async with session.post("/activities") as reply:
                return reply.status == 200

        await wait_until(answers, 60, "the first workflow")
        for kind, what in KINDS.items():
            await closed_loop(lambda _, k=kind: run(f"/{k}"), 20, 1)
            for concurrency, count in ((1, 150), (16, 480)):
                figures = await closed_loop(lambda _, k=kind: run(f"/{k}"), count, concurrency)
                emit(
                    f"W2 three durable steps as {what}",
                    concurrency=concurrency,
                    **figures.fields(),
                    baseline="three commits, same Postgres",
                    baseline_p50_ms=base[concurrency].fields()["p50_ms"],
                    baseline_per_s=base[concurrency].fields()["per_s"],
                )


async def _commits(stack: Stack) -> dict[int, Run]:
    pool = await asyncpg.create_pool(stack.database_url(), min_size=16, max_size=16)
    await pool.execute("CREATE TABLE IF NOT EXISTS public.bench_steps (id serial, body text)")

    async def three(_: int) -> None:
        for _ in range(3):
            await pool.execute("INSERT INTO public.bench_steps (body) VALUES ('step')")

    runs = {n: await closed_loop(three, 480, n) for n in (1, 16)}
    await pool.close()
    return runs
