"""Creation of conversations for one owner, as a back end with one service user does."""

from tests.bench.figures import closed_loop, emit
from tests.support.platform import Platform

SECONDS = 20
"""More than two periods of the reminder that reconciles creations."""
AT_ONCE = 8


async def measure(platform: Platform) -> None:
    """Print p50 and p99 with 1 client, and sustained creations per second with 8."""
    async with platform.client("bench-create") as client:

        async def create(_: int) -> None:
            await client.must("CreateConversation", title="bench")

        await closed_loop(create, 20, 2)
        single = await closed_loop(create, 200, 1)
        concurrent = await closed_loop(create, SECONDS * 100, AT_ONCE)
    for concurrency, run in ((1, single), (AT_ONCE, concurrent)):
        emit("create conversations of one owner", concurrency=concurrency, **run.fields())
