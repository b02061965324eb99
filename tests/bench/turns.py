"""W3: streamed turns of 40 tokens 5 ms apart, compared with the same request to the model."""

import time
from typing import Final

import aiohttp

from tests.bench.figures import Operation, Run, added, closed_loop, emit, interleaved, paired
from tests.support.platform import Client, Platform

SCRIPT = '{{script: {"tokens":40,"delay_ms":5}}}'
FIRST = b"event: text.delta"
END = b"event: run.completed"
MOST: Final = 32
"""Concurrent turns, each in a conversation of its own."""
EDGE: Final = "through the edge"
DIRECT: Final = "the same request to the model"


async def measure(platform: Platform) -> None:
    """Print the time to the first token and turns per second, with 1, 8 and 32 clients; with 1 also the added time."""
    async with platform.client("bench-turn") as client, aiohttp.ClientSession() as direct:
        free = [await client.conversation() for _ in range(MOST)]

        async def turn(_: int) -> float:
            conversation_id = free.pop()
            try:
                return await first_token(client, conversation_id)
            finally:
                free.append(conversation_id)

        ways: dict[str, Operation] = {
            EDGE: turn,
            DIRECT: lambda _: _direct(direct, platform.model_url),
        }
        await closed_loop(turn, 10, 1)
        pairs = await paired(ways, 60)
        _emit(1, pairs, **added(pairs[EDGE], pairs[DIRECT]))
        for concurrency, count in ((8, 160), (MOST, 480)):
            runs = await interleaved(ways, count, concurrency)
            rates = {"turns_per_s": round(runs[EDGE].rate, 1)}
            _emit(concurrency, runs, **rates, baseline_turns_per_s=round(runs[DIRECT].rate, 1))


def _emit(concurrency: int, runs: dict[str, Run], **more: float) -> None:
    found, base = runs[EDGE].fields(), runs[DIRECT].fields()
    emit(
        f"W3 streamed turn {EDGE}",
        concurrency=concurrency,
        n=found["n"],
        failed=found["failed"],
        first_token_p50_ms=found["p50_ms"],
        first_token_p99_ms=found["p99_ms"],
        baseline=DIRECT,
        baseline_first_token_p50_ms=base["p50_ms"],
        baseline_first_token_p99_ms=base["p99_ms"],
        **more,
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
