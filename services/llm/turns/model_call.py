"""Streams a model's answer into the event log: the first piece at once, then in batches; stops when asked."""

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
    "gen_ai.client.operation.time_to_first_chunk", "s", "Time to the first piece of an answer."
)
MAX_ANSWER_BYTES: Final = 512 * 1024
"""An answer ends here as at the model's own limit: escaped as JSON it still fits into one row and one call."""
BATCH_SECONDS: Final = 0.04
"""How long pieces gather before they are written; the first one never waits."""


class ModelCall:
    """One call of the model, within a segment."""

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
        self._shown: list[str] = []
        self._waiting: list[NewEvent] = []
        self._opening = list(opening)
        self._news = asyncio.Event()
        self._ended = asyncio.Event()
        self._finished: Finished | None = None
        self._error: RpcError | None = None
        self._asked_at = time.monotonic()
        self._asked = False
        self._bytes = 0
        self._began_showing = False
        self._deltas = 0
        self._stopped_at: datetime | None = None
        self._closed_at: datetime | None = None
        self._deltas_at_stop = 0

    async def run(self) -> tuple[Answer, Sequence[NewEvent]]:
        """The answer, and the events that are still to be committed with it."""
        if self._segment.stop.is_set():
            await self._note_stop()
            return self._cancelled(), self._opening
        reader = asyncio.create_task(self._read(), name="model stream")
        stop = asyncio.create_task(self._segment.stop.wait(), name="stop")
        writer = asyncio.create_task(self._write(), name="event writer")
        try:
            await asyncio.wait({reader, stop, writer}, return_when=asyncio.FIRST_COMPLETED)
            if stop.done() and not reader.done():
                await self._interrupt(reader)
            elif not reader.done():
                await writer  # it never ends before the reader, unless it fails
            if not reader.cancelled():
                await reader
            # The writer is never cut off in the middle of a batch: its text would be lost.
            self._ended.set()
            self._news.set()
            await writer
        finally:
            for task in (reader, stop, writer):
                task.cancel()
            await asyncio.gather(reader, stop, writer, return_exceptions=True)
        return self._answer(), [*self._opening, *_merge(self._take())]

    async def _read(self) -> None:
        try:
            async with asyncio.timeout((self._deadline - self._clock()).total_seconds()):
                with span("model.call", **{"gen_ai.request.model": self._prompt.model}):
                    async with self._model.stream(self._prompt) as events:
                        await self._collect(events)
        except TimeoutError:
            self._error = RpcError(ErrorCode.DEADLINE_EXCEEDED, "The turn took longer than it may.")
        except RpcError as error:
            self._error = error
        finally:
            self._closed_at = self._clock()

    async def _collect(self, events: AsyncIterator[ModelEvent]) -> None:
        self._asked = True
        async for event in events:
            match event:
                case TextDelta(text):
                    if self._is_full(text):
                        self._finished = Finished("length", self._prompt.model, None)
                        return
                    self._deltas += 1
                    self._shown.append(text)
                    self._show(NewEvent(EventType.TEXT_DELTA, {"text": text}))
                case ReasoningDelta(text):
                    self._show(NewEvent(EventType.REASONING_DELTA, {"text": text}))
                case Finished():
                    self._finished = event

    def _is_full(self, text: str) -> bool:
        self._bytes += len(text.encode())
        return self._bytes > MAX_ANSWER_BYTES

    def _show(self, event: NewEvent) -> None:
        if not self._began_showing:
            self._began_showing = True
            _first_chunk.record(
                time.monotonic() - self._asked_at, {"gen_ai.request.model": self._prompt.model}
            )
        self._waiting.append(event)
        self._news.set()

    async def _write(self) -> None:
        if self._opening:
            opening, self._opening = self._opening, []
            await self._segment.emit(opening)
        while not self._ended.is_set():
            await self._news.wait()
            self._news.clear()
            batch = [] if self._ended.is_set() else _merge(self._take())
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

    async def _note_stop(self) -> None:
        self._stopped_at = self._closed_at = self._clock()
        await self._segment.acknowledge_cancel()

    def _take(self) -> list[NewEvent]:
        taken, self._waiting = self._waiting, []
        return taken

    def _answer(self) -> Answer:
        text = "".join(self._shown)
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
            text="".join(self._shown),
            asked=self._asked,
            cancel_acknowledged_at=self._stopped_at,
            upstream_closed_at=self._closed_at,
            tokens_after_cancel=self._deltas - self._deltas_at_stop,
        )


def _merge(events: list[NewEvent]) -> list[NewEvent]:
    """Neighbouring pieces of one kind as one event: fewer rows, the same text."""
    merged: list[NewEvent] = []
    for event in events:
        if merged and merged[-1].type == event.type:
            text = merged[-1].data["text"] + event.data["text"]
            merged[-1] = NewEvent(event.type, {"text": text})
        else:
            merged.append(event)
    return merged
