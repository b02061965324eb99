"""One turn of an actor for all the calls that wait for it, so that they share a commit."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

I = TypeVar("I")  # noqa: E741 - input
O = TypeVar("O")  # noqa: E741 - output


class Together(Generic[I, O]):
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
            while not taken and self._waiting and not done.done():
                taken.extend(self._waiting.popleft() for _ in range(self._room()))
            if taken:
                outputs = await self._work([each for each, _ in taken])
                for (_, future), output in zip(taken, outputs, strict=True):
                    future.set_result(output)

        try:
            await self._exclusively(turn)
        except Exception as error:
            for _, future in taken:
                if not future.done():
                    future.set_exception(error)
                    future.exception()  # its caller may have left
            if not done.done():
                raise
        return await done

    def _room(self) -> int:
        return min(self._most, len(self._waiting))
