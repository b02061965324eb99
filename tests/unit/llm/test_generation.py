"""`ModelCall`: batching of deltas, cancels, deadlines and failures."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.contracts.events import EventType
from services.contracts.llm.errors import LlmErrorCode
from services.contracts.llm.turns import GenerationOptions, TurnStatus, Usage
from services.kit.errors import AnyErrorCode, ErrorCode, RpcError
from services.kit.eventlog import NewEvent, StaleAttempt
from services.llm.domain.commands import Answer
from services.llm.ports import Finished, ModelEvent, Prompt, ReasoningDelta, TextDelta
from services.llm.turns.model_call import MAX_ANSWER_BYTES, ModelCall
from tests.requirements import requirement

END = Finished("stop", "m", Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3))
OPENING = NewEvent(EventType.RUN_STARTED, {})


class Model:
    """Plays a script of events, failures, and gates to wait at."""

    def __init__(self, *script: ModelEvent | Exception | asyncio.Event) -> None:
        self._script = script
        self.closed = False

    def require_allowed(self, model: str) -> None: ...

    @asynccontextmanager
    async def stream(self, prompt: Prompt) -> AsyncIterator[AsyncIterator[ModelEvent]]:
        try:
            yield self._events()
        finally:
            self.closed = True

    async def _events(self) -> AsyncIterator[ModelEvent]:
        for step in self._script:
            if isinstance(step, asyncio.Event):
                await step.wait()
            elif isinstance(step, Exception):
                raise step
            else:
                yield step


class Log:
    """A segment in memory; `held` makes writes wait, `broken` makes them fail."""

    def __init__(self, *, held: bool = False, broken: bool = False) -> None:
        self.stop = asyncio.Event()
        self.wrote = asyncio.Event()
        self.go_on = asyncio.Event()
        self.writing = asyncio.Event()
        self.batches: list[list[NewEvent]] = []
        self.acknowledged = False
        self._broken = broken
        if not held:
            self.go_on.set()

    async def emit(self, events: Sequence[NewEvent]) -> None:
        if self._broken:
            raise StaleAttempt
        self.writing.set()
        await self.go_on.wait()
        self.batches.append(list(events))
        if any(event.type == EventType.TEXT_DELTA for event in events):
            self.wrote.set()

    async def acknowledge_cancel(self) -> None:
        self.acknowledged = True


def generation(
    log: Log, model: Model, seconds: float = 60, opening: Sequence[NewEvent] = (OPENING,)
) -> ModelCall:
    def now() -> datetime:
        return datetime.now(UTC)

    deadline = now() + timedelta(seconds=seconds)
    prompt = Prompt("m", [], GenerationOptions(), "u")
    segment: Any = log
    return ModelCall(segment, model, prompt, deadline, now, opening=opening)


def text_of(events: Sequence[NewEvent]) -> str:
    return "".join(each.data["text"] for each in events if each.type == EventType.TEXT_DELTA)


def shown(log: Log, rest: Sequence[NewEvent]) -> str:
    return text_of([event for batch in [*log.batches, rest] for event in batch])


async def test_the_first_delta_is_written_at_once_and_later_ones_in_batches() -> None:
    log, more = Log(), asyncio.Event()
    model = Model(TextDelta("a"), more, *(TextDelta(str(n)) for n in range(9)), END)
    running = asyncio.create_task(generation(log, model).run())
    await log.wrote.wait()
    assert log.batches == [[OPENING], [NewEvent(EventType.TEXT_DELTA, {"text": "a"})]]
    more.set()
    answer, rest = await running
    assert answer.status is TurnStatus.COMPLETED
    assert answer.text == shown(log, rest) == "a012345678"
    assert (answer.finish_reason, answer.usage) == ("stop", END.usage)
    assert [event.type for event in rest] == [EventType.TEXT_DELTA]


async def test_nothing_is_lost_when_the_model_ends_while_a_batch_is_written() -> None:
    log, more = Log(held=True), asyncio.Event()
    running = asyncio.create_task(
        generation(log, Model(TextDelta("a"), more, TextDelta("b"), END), opening=()).run()
    )
    await log.writing.wait()
    more.set()
    await asyncio.sleep(0)
    log.go_on.set()
    answer, rest = await running
    assert answer.text == shown(log, rest) == "ab"


async def test_reasoning_and_text_keep_their_order_and_are_not_merged() -> None:
    log = Log()
    model = Model(ReasoningDelta("h"), ReasoningDelta("m"), TextDelta("a"), END)
    answer, rest = await generation(log, model, opening=()).run()
    kinds = [event.type for batch in [*log.batches, rest] for event in batch]
    assert list(dict.fromkeys(kinds)) == [
        EventType.REASONING_DELTA,
        EventType.TEXT_DELTA,
    ]
    assert answer.text == "a"


@requirement("turns:cancel")
async def test_a_stop_closes_the_model_at_once_and_keeps_the_text() -> None:
    log, never = Log(), asyncio.Event()
    model = Model(TextDelta("a"), never, TextDelta("late"), END)
    running = asyncio.create_task(generation(log, model).run())
    await log.wrote.wait()
    log.stop.set()
    answer, rest = await running
    assert model.closed
    assert log.acknowledged
    assert (answer.status, answer.text, answer.tokens_after_cancel) == (
        TurnStatus.CANCELLED,
        "a",
        0,
    )
    assert shown(log, rest) == "a"
    assert answer.cancel_acknowledged_at is not None
    assert answer.upstream_closed_at is not None
    assert answer.upstream_closed_at >= answer.cancel_acknowledged_at


@requirement("turns:cancel-before-start")
async def test_a_stop_before_the_begin_calls_no_model() -> None:
    log, model = Log(), Model(TextDelta("a"), END)
    log.stop.set()
    answer, rest = await generation(log, model).run()
    assert (answer.status, answer.text, answer.asked) == (TurnStatus.CANCELLED, "", False)
    assert list(rest) == [OPENING]
    assert not model.closed  # never opened


@requirement("turns:bounds")
async def test_a_turn_past_its_deadline_ends_with_its_partial_text() -> None:
    model = Model(TextDelta("a"), asyncio.Event())
    answer, _ = await generation(Log(), model, seconds=0.05).run()
    assert failed_with(answer) == ("a", ErrorCode.DEADLINE_EXCEEDED)
    assert answer.asked
    assert model.closed


@requirement("turns:bounds")
async def test_an_endless_answer_is_truncated_to_the_maximum_size() -> None:
    piece = TextDelta("x" * 65_536)
    answer, _ = await generation(Log(), Model(*[piece] * 20, END)).run()
    assert (answer.status, answer.finish_reason) == (TurnStatus.COMPLETED, "length")
    assert len(answer.text) == MAX_ANSWER_BYTES
    assert answer.usage is None


async def test_a_failure_of_the_model_keeps_its_partial_text() -> None:
    failure = RpcError(LlmErrorCode.STREAM_INCOMPLETE, "cut")
    log = Log()
    answer, rest = await generation(log, Model(TextDelta("a"), failure)).run()
    assert failed_with(answer) == ("a", LlmErrorCode.STREAM_INCOMPLETE)
    assert shown(log, rest) == "a"


@requirement("turns:fenced")
async def test_a_superseded_attempt_closes_the_model() -> None:
    model = Model(TextDelta("a"), asyncio.Event())
    with pytest.raises(StaleAttempt):
        await generation(Log(broken=True), model, opening=()).run()
    assert model.closed


async def test_a_bug_in_an_adapter_is_not_swallowed() -> None:
    with pytest.raises(ZeroDivisionError):
        await generation(Log(), Model(ZeroDivisionError())).run()


def failed_with(answer: Answer) -> tuple[str, AnyErrorCode]:
    assert answer.status is TurnStatus.FAILED
    assert answer.error is not None
    return answer.text, answer.error.code
