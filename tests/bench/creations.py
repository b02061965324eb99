"""Creation of conversations by one owner, as a trusted back end creates them for a busy user."""

from tests.bench.figures import closed_loop, emit
from tests.support.platform import Platform

SECONDS = 20
"""More than two periods of the reminder that reconciles creations."""
AT_ONCE = 8


async def measure(platform: Platform) -> None:
    """Print p50 and p99 at 1, and creations per second at 8, sustained."""
    async with platform.client("bench-create") as client:

        async def create(_: int) -> None:
            await client.must("CreateConversation", title="bench")

        await closed_loop(create, 20, 2)
        alone = await closed_loop(create, 200, 1)
        crowd = await closed_loop(create, SECONDS * 100, AT_ONCE)
    for concurrency, run in ((1, alone), (AT_ONCE, crowd)):
        emit("create conversations of one owner", concurrency=concurrency, **run.fields())
