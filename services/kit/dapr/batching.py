"""Batches concurrent calls of an actor, so that they share one acquisition of its lock and one commit."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

I = TypeVar("I")  # noqa: E741 - input
O = TypeVar("O")  # noqa: E741 - output


class CallBatcher(Generic[I, O]):
    """Runs the calls that wait for the actor's lock as one batch, in order of arrival.

    `run_exclusively` holds the lock; `work` maps inputs to outputs in order. If it raises, every call of the batch
    fails, so `work` must isolate failures of single inputs itself.
    """

    def __init__(
        self,
        run_exclusively: Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]],
        work: Callable[[Sequence[I]], Awaitable[Sequence[O]]],
        max_batch: int,
    ) -> None:
        self._run_exclusively = run_exclusively
        self._work = work
        self._max_batch = max_batch
        self._waiting: deque[tuple[I, asyncio.Future[O]]] = deque()

    async def call(self, value: I) -> O:
        """The output for `value`, computed in one batch with the other waiting calls."""
        done = asyncio.Future[O]()
        self._waiting.append((value, done))
        batch: list[tuple[I, asyncio.Future[O]]] = []

        # Repeated after a state conflict, with the same calls and new ones.
        async def run_batch() -> None:
            if not done.done():
                batch.extend(self._take(self._max_batch - len(batch)))
                await self._run(batch)

        try:
            await self._run_exclusively(run_batch)
        except Exception as error:
            _fail(batch, error)
            if not done.done():
                raise
        return await done

    def _take(self, count: int) -> list[tuple[I, asyncio.Future[O]]]:
        return [self._waiting.popleft() for _ in range(min(count, len(self._waiting)))]

    async def _run(self, batch: Sequence[tuple[I, asyncio.Future[O]]]) -> None:
        outputs = await self._work([value for value, _ in batch])
        for (_, done), output in zip(batch, outputs, strict=True):
            done.set_result(output)


def _fail(batch: Sequence[tuple[I, asyncio.Future[O]]], error: Exception) -> None:
    for _, done in batch:
        if not done.done():
            done.set_exception(error)
            done.exception()  # retrieved here: its caller may have been cancelled
