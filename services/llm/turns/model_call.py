"""Streams a model's answer into the event log: the first delta at once, then in batches; stops on a cancel."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Final

from opentelemetry import metrics

from services.contracts.events import EventType
from services.contracts.llm.turns import TurnStatus
from services.kit.clock import Clock
from services.kit.errors import ErrorCode, RpcError
from services.kit.eventlog import NewEvent, Segment
from services.kit.failpoints import failpoint
from services.kit.telemetry.tracing import span
from services.kit.waiting import wait_for
from services.llm.domain.commands import Answer
from services.llm.ports import (
    Finished,
    LanguageModel,
    ModelEvent,
    Prompt,
    ReasoningDelta,
    TextDelta,
)

_first_chunk: Final = metrics.get_meter("yocaso").create_histogram(
    "gen_ai.client.operation.time_to_first_chunk", "s", "Time to the first delta of an answer."
)
MAX_ANSWER_BYTES: Final = 512 * 1024
"""An answer is truncated here, so that it fits into one row and one actor call as escaped JSON."""
BATCH_SECONDS: Final = 0.04
"""Interval between writes of deltas; the first delta does not wait."""


class ModelCall:
    """One call of the model, within an attempt."""

    def __init__(
        self,
        segment: Segment,
        model: LanguageModel,
        prompt: Prompt,
        deadline: datetime,
        clock: Clock,
        *,
        opening: Sequence[NewEvent],
    ) -> None:
        self._segment = segment
        self._model = model
        self._prompt = prompt
        self._deadline = deadline
        self._clock = clock
        self._texts: list[str] = []
        self._pending: list[NewEvent] = []
        self._opening = list(opening)
        self._has_pending = asyncio.Event()
        self._ended = asyncio.Event()
        self._finished: Finished | None = None
        self._error: RpcError | None = None
        self._asked_at = time.monotonic()
        self._asked = False
        self._bytes = 0
        self._has_first_chunk = False
        self._deltas = 0
        self._stopped_at: datetime | None = None
        self._closed_at: datetime | None = None
        self._deltas_at_stop = 0

    async def run(self) -> tuple[Answer, Sequence[NewEvent]]:
        """Call the model. Returns the answer, and the events still to be committed with it."""
        if self._segment.stop.is_set():
            self._stopped_at = self._closed_at = self._clock()
            await self._segment.acknowledge_cancel()
            return self._cancelled(), self._opening
        reader = asyncio.create_task(self._read(), name="model stream")
        stop = asyncio.create_task(self._segment.stop.wait(), name="stop")
        writer = asyncio.create_task(self._write(), name="event writer")
        try:
            await asyncio.wait({reader, stop, writer}, return_when=asyncio.FIRST_COMPLETED)
            if stop.done() and not reader.done():
                await self._interrupt(reader)
            elif not reader.done():
                await writer  # it ends before the reader only by failing
            if not reader.cancelled():
                await reader
            # Cancelling the writer in the middle of a batch would lose the batch.
            self._ended.set()
            self._has_pending.set()
            await writer
        finally:
            for task in (reader, stop, writer):
                task.cancel()
            await asyncio.gather(reader, stop, writer, return_exceptions=True)
        return self._answer(), [*self._opening, *_merge(self._drain())]

    async def _read(self) -> None:
        try:
            async with asyncio.timeout((self._deadline - self._clock()).total_seconds()):
                with span("model.call", **{"gen_ai.request.model": self._prompt.model}):
                    async with self._model.stream(self._prompt) as events:
                        await self._collect(events)
        except TimeoutError:
            self._error = RpcError(
                ErrorCode.DEADLINE_EXCEEDED, "The turn exceeded its maximum duration."
            )
        except RpcError as error:
            self._error = error
        finally:
            self._closed_at = self._clock()

    async def _collect(self, events: AsyncIterator[ModelEvent]) -> None:
        self._asked = True
        async for event in events:
            match event:
                case TextDelta(text):
                    self._bytes += len(text.encode())
                    if self._bytes > MAX_ANSWER_BYTES:
                        self._finished = Finished("length", self._prompt.model, None)
                        return
                    self._deltas += 1
                    self._texts.append(text)
                    self._enqueue(NewEvent(EventType.TEXT_DELTA, {"text": text}))
                case ReasoningDelta(text):
                    self._enqueue(NewEvent(EventType.REASONING_DELTA, {"text": text}))
                case Finished():
                    self._finished = event

    def _enqueue(self, event: NewEvent) -> None:
        if not self._has_first_chunk:
            self._has_first_chunk = True
            _first_chunk.record(
                time.monotonic() - self._asked_at, {"gen_ai.request.model": self._prompt.model}
            )
        self._pending.append(event)
        self._has_pending.set()

    async def _write(self) -> None:
        if self._opening:
            opening, self._opening = self._opening, []
            await self._segment.emit(opening)
        while not self._ended.is_set():
            await self._has_pending.wait()
            self._has_pending.clear()
            batch = [] if self._ended.is_set() else _merge(self._drain())
            if batch:
                await self._segment.emit(batch)
                await failpoint("turn.after_chunk")
                await wait_for(self._ended, BATCH_SECONDS)

    async def _interrupt(self, reader: asyncio.Task[None]) -> None:
        self._stopped_at = self._clock()
        self._deltas_at_stop = self._deltas
        reader.cancel()
        await asyncio.wait({reader})
        await self._segment.acknowledge_cancel()

    def _drain(self) -> list[NewEvent]:
        events, self._pending = self._pending, []
        return events

    def _answer(self) -> Answer:
        text = "".join(self._texts)
        if self._stopped_at is not None:
            return self._cancelled()
        if self._error is not None:
            return Answer(
                status=TurnStatus.FAILED,
                text=text,
                asked=self._asked,
                error=self._error.to_status(),
            )
        assert self._finished is not None
        return Answer(
            status=TurnStatus.COMPLETED,
            text=text,
            asked=True,
            finish_reason=self._finished.finish_reason,
            usage=self._finished.usage,
        )

    def _cancelled(self) -> Answer:
        return Answer(
            status=TurnStatus.CANCELLED,
            text="".join(self._texts),
            asked=self._asked,
            cancel_acknowledged_at=self._stopped_at,
            upstream_closed_at=self._closed_at,
            tokens_after_cancel=self._deltas - self._deltas_at_stop,
        )


def _merge(events: list[NewEvent]) -> list[NewEvent]:
    """Join adjacent deltas of one type into one event, to write fewer rows."""
    merged: list[NewEvent] = []
    for event in events:
        if merged and merged[-1].type == event.type:
            text = merged[-1].data["text"] + event.data["text"]
            merged[-1] = NewEvent(event.type, {"text": text})
        else:
            merged.append(event)
    return merged
