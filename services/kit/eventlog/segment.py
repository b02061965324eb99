"""Segments: the effects of one attempt, each checkpointed before the next begins."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from pydantic import BaseModel

from services.kit.eventlog.log import EventLog
from services.kit.eventlog.records import Attempt, NewEvent

R = TypeVar("R", bound=BaseModel)


class RetryLater(Exception):
    """A transient failure: another attempt is needed after `after`."""

    def __init__(self, after: timedelta) -> None:
        super().__init__(str(after))
        self.after = after


class Segment:
    """One attempt at a stream's work; `stop` is set when cancellation is requested.

    Every write is fenced: it raises `StaleAttempt` once a newer attempt has begun.
    """

    def __init__(self, log: EventLog, attempt: Attempt) -> None:
        self._log = log
        self.attempt = attempt
        self.stop = asyncio.Event()
        self.last_seq = attempt.last_seq
        self.finished = False
        self.owed: Any = None
        """The effect that `finish` left to settle."""
        if attempt.cancel_requested:
            self.stop.set()

    @property
    def number(self) -> int:
        """The attempt's number, from 1."""
        return self.attempt.number

    @property
    def stream_id(self) -> str:
        return self.attempt.stream_id

    @property
    def checkpoint_seq(self) -> int:
        """The seq of the last checkpoint when this attempt began."""
        return self.attempt.checkpoint_seq

    async def emit(self, events: Sequence[NewEvent]) -> None:
        """Append events; they are durable on return."""
        await self._append(events)

    async def step(
        self,
        name: str,
        result: type[R],
        effect: Callable[[], Awaitable[tuple[R, Sequence[NewEvent]]]],
    ) -> R:
        """The checkpointed result of a step; without one, run `effect` and commit its result with its events."""
        if name in self.attempt.checkpoints:
            return result.model_validate(self.attempt.checkpoints[name])
        value, events = await effect()
        await self._append(events, (name, value.model_dump(mode="json", exclude_none=True)))
        return value

    async def finish(self, kind: str, data: Mapping[str, Any], *, owed: Any = None) -> None:
        """Append the terminal event; `owed` is an effect to settle after it."""
        await self._append([NewEvent(kind, data, terminal=True)], None, owed)
        self.finished, self.owed = True, owed

    async def acknowledge_cancel(self) -> None:
        """Record that this attempt has seen the cancel request."""
        await self._log.acknowledge_cancel(self.stream_id, self.number)

    async def _append(
        self,
        events: Sequence[NewEvent],
        checkpoint: tuple[str, Any] | None = None,
        owed: Any = None,
    ) -> None:
        self.last_seq, cancelled = await self._log.append(
            self.stream_id, self.number, events, checkpoint=checkpoint, owed=owed
        )
        if cancelled:
            self.stop.set()
