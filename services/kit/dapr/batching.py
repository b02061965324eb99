"""One turn of an actor for all the calls that wait for it, so that they share a commit."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

I = TypeVar("I")  # noqa: E741 - input
O = TypeVar("O")  # noqa: E741 - output


class CallBatcher(Generic[I, O]):
    """Calls that come while an actor is busy are worked on as one, in the order in which they came.

    `exclusively` gives the turn, `work` takes some inputs and gives their outputs in order. If it fails, so does every
    call that it had taken: whoever may be served alone must be served so by `work`.
    """

    def __init__(
        self,
        exclusively: Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]],
        work: Callable[[Sequence[I]], Awaitable[Sequence[O]]],
        most: int,
    ) -> None:
        self._exclusively = exclusively
        self._work = work
        self._most = most
        self._waiting: deque[tuple[I, asyncio.Future[O]]] = deque()

    async def call(self, value: I) -> O:
        """Work on `value`, with whatever else waits by then."""
        done = asyncio.Future[O]()
        self._waiting.append((value, done))
        taken: list[tuple[I, asyncio.Future[O]]] = []

        async def turn() -> None:  # run again after a lost race, with what it took the first time
            if not done.done():
                taken.extend(self._take(self._most - len(taken)))
                await self._work_on(taken)

        try:
            await self._exclusively(turn)
        except Exception as error:
            _fail(taken, error)
            if not done.done():
                raise
        return await done

    def _take(self, room: int) -> list[tuple[I, asyncio.Future[O]]]:
        return [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]

    async def _work_on(self, taken: Sequence[tuple[I, asyncio.Future[O]]]) -> None:
        outputs = await self._work([value for value, _ in taken])
        for (_, done), output in zip(taken, outputs, strict=True):
            done.set_result(output)


def _fail(taken: Sequence[tuple[I, asyncio.Future[O]]], error: Exception) -> None:
    for _, done in taken:
        if not done.done():
            done.set_exception(error)
            done.exception()  # its caller may have left
