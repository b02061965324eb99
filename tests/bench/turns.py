"""W3: streamed turns of 40 tokens 5 ms apart, compared with the same request to the model."""

import time

import aiohttp

from tests.bench.figures import Run, closed_loop, emit, milliseconds, quantile
from tests.support.platform import Client, Platform

SCRIPT = '{{script: {"tokens":40,"delay_ms":5}}}'
FIRST = b"event: text.delta"
END = b"event: run.completed"


async def measure(platform: Platform) -> None:
    """Print the added time to the first token, and turns per second, with 1, 8 and 32 clients."""
    async with platform.client("bench-turn") as client, aiohttp.ClientSession() as direct:
        await _turns(client, 10, 1)
        for concurrency, count in ((1, 60), (8, 160), (32, 480)):
            run, failed = await _turns(client, count, concurrency)
            base = await closed_loop(
                lambda _: _direct(direct, platform.model_url), count, concurrency
            )
            emit(
                "W3 streamed turn through the edge",
                concurrency=concurrency,
                n=count,
                first_token_p50_ms=milliseconds(quantile(run.latencies, 0.5)),
                first_token_p99_ms=milliseconds(quantile(run.latencies, 0.99)),
                over_direct_p50_ms=_over(run, base, 0.5),
                over_direct_p99_ms=_over(run, base, 0.99),
                turns_per_s=round(run.rate, 1),
                failed=failed,
                baseline="the same request to the model",
                baseline_first_token_p50_ms=milliseconds(quantile(base.latencies, 0.5)),
                baseline_turns_per_s=round(base.rate, 1),
            )


async def first_token(client: Client, conversation_id: str, text: str = SCRIPT) -> float:
    """Seconds to the first token of a turn that completes.

    Raises:
        RuntimeError: the turn did not complete.
    """
    began = time.perf_counter()
    first = None
    completed = False
    async with client.stream("StreamMessage", conversationId=conversation_id, text=text) as reply:
        async for line in reply.content:
            if first is None and line.startswith(FIRST):
                first = time.perf_counter() - began
            completed = completed or line.startswith(END)
    if first is None or not completed:
        raise RuntimeError("the turn did not complete")
    return first


async def _turns(client: Client, count: int, concurrency: int) -> tuple[Run, int]:
    ids = [await client.conversation() for _ in range(concurrency)]
    free = list(ids)
    failed = 0

    async def turn(_: int) -> float:
        nonlocal failed
        conversation_id = free.pop()
        try:
            return await first_token(client, conversation_id)
        except RuntimeError:
            failed += 1
            return 0.0
        finally:
            free.append(conversation_id)

    return await closed_loop(turn, count, concurrency), failed


async def _direct(session: aiohttp.ClientSession, url: str) -> float:
    body = {
        "model": "scripted/one",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": SCRIPT}],
    }
    began = time.perf_counter()
    first = None
    async with session.post(f"{url}/v1/chat/completions", json=body) as reply:
        async for line in reply.content:
            if (
                first is None
                and line.startswith(b"data:")
                and b'"content":"' in line.replace(b" ", b"")
            ) and b'"content":""' not in line.replace(b" ", b""):
                first = time.perf_counter() - began
    assert first is not None
    return first


def _over(run: Run, base: Run, share: float) -> float:
    return round(
        milliseconds(quantile(run.latencies, share))
        - milliseconds(quantile(base.latencies, share)),
        2,
    )
