"""Segments: several effects in one activity, each checkpointed before the next begins."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from pydantic import BaseModel

from services.kit.eventlog.log import Attempt, EventLog, NewEvent, StaleAttempt, control_channel
from services.kit.signals import Signals
from services.kit.waiting import wait_for

R = TypeVar("R", bound=BaseModel)
T = TypeVar("T")

PULSE_SECONDS: Final = 1.0
"""How late a writer learns of a cancel or of its successor when no wake-up reaches it."""

WATCH_AFTER_SECONDS: Final = 0.3


class Segment:
    """One attempt at a stream's work.

    `step` runs an effect unless an earlier attempt has checkpointed it. `stop` is set when a cancel is wanted.
    Every write is fenced: the first one after a newer attempt began raises `StaleAttempt`.
    """

    def __init__(self, log: EventLog, attempt: Attempt) -> None:
        self._log = log
        self._attempt = attempt
        self.stop = asyncio.Event()
        self.last_seq = attempt.last_seq
        self.finished = False
        self._over = asyncio.Event()
        self._news = asyncio.Event()
        if attempt.cancel_requested_at is not None:
            self.stop.set()

    @property
    def number(self) -> int:
        """The attempt's number, from 1."""
        return self._attempt.number

    @property
    def stream_id(self) -> str:
        """The stream that this attempt writes."""
        return self._attempt.stream_id

    @property
    def checkpoint_seq(self) -> int:
        """The last seq that was committed with a checkpoint when this attempt began."""
        return self._attempt.checkpoint_seq

    def done(self, name: str) -> bool:
        """Whether an earlier attempt has checkpointed this step."""
        return name in self._attempt.checkpoints

    async def emit(self, events: Sequence[NewEvent]) -> None:
        """Append events; durable when this returns."""
        await self._append(events, None)

    async def step(
        self,
        name: str,
        result: type[R],
        effect: Callable[[], Awaitable[tuple[R, Sequence[NewEvent]]]],
    ) -> R:
        """The result of `effect`, run at most once per checkpoint; its events commit with the checkpoint."""
        if name in self._attempt.checkpoints:
            return result.model_validate(self._attempt.checkpoints[name])
        value, events = await effect()
        await self._append(events, (name, value.model_dump(mode="json")))
        return value

    async def finish(self, kind: str, data: Mapping[str, Any]) -> None:
        """Append the terminal event."""
        await self._append([NewEvent(kind, data, terminal=True)], None)
        self.finished = True

    async def acknowledge_cancel(self) -> None:
        """Record that this attempt has seen the cancel."""
        await self._log.acknowledge_cancel(self.stream_id, self.number)

    async def watch(self, signals: Signals, owner: asyncio.Task[Any]) -> None:
        """Set `stop` at a cancel; cancel the owner's task when a newer attempt took over.

        What is over within WATCH_AFTER_SECONDS is never watched: each of its writes asks the same.
        """
        if await wait_for(self._over, WATCH_AFTER_SECONDS):
            return
        await self._pulse(owner)
        async with signals.listen(control_channel(self.stream_id)) as news:
            self._news = news
            while not self._over.is_set():
                await wait_for(news, PULSE_SECONDS)
                news.clear()
                await self._pulse(owner)

    async def _pulse(self, owner: asyncio.Task[Any]) -> None:
        if self._over.is_set():
            return
        try:
            if await self._log.pulse(self.stream_id, self.number):
                self.stop.set()
        except StaleAttempt:
            if not self.finished:
                owner.cancel()
            self._over.set()
        except Exception:  # noqa: S110 - a failing store shows at the next write
            pass

    async def let_go(self, watcher: asyncio.Task[None]) -> None:
        """End the watch without cutting a pulse off: one that lands later would make the stream look busy."""
        self._over.set()
        self._news.set()
        await asyncio.wait({watcher}, timeout=PULSE_SECONDS)
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
        if not self.finished:
            await self._log.release(self.stream_id, self.number)

    async def _append(self, events: Sequence[NewEvent], checkpoint: tuple[str, Any] | None) -> None:
        self.last_seq, cancelled = await self._log.append(
            self.stream_id, self.number, events, checkpoint=checkpoint
        )
        if cancelled:
            self.stop.set()


async def run_segment(
    log: EventLog,
    signals: Signals,
    stream_id: str,
    work: Callable[[Segment], Awaitable[T]],
    *,
    first: bool = False,
) -> T | None:
    """Begin an attempt and do its work; None where the stream is closed or another attempt took over.

    With `first`, only where no attempt was begun before. An attempt that ends without ending the stream
    releases it.
    """
    attempt = await log.begin_attempt(stream_id, first=first)
    if attempt is None:
        return None
    segment = Segment(log, attempt)
    task = asyncio.ensure_future(work(segment))
    watcher = asyncio.create_task(segment.watch(signals, task), name=f"watch {stream_id}")
    try:
        return await task
    except StaleAttempt:
        return None
    except asyncio.CancelledError:
        if task.cancelled() and watcher.done():
            return None
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise
    finally:
        await segment.let_go(watcher)
