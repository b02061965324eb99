"""Durable functions: a call whose steps are checkpointed, and which is recovered if its host dies."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Generic, TypeVar

from pydantic import BaseModel

from services.kit.errors import ErrorBody, ErrorCode, RpcError
from services.kit.eventlog.engine import Engine
from services.kit.eventlog.records import NewStream, StreamHead
from services.kit.eventlog.segment import Segment

I = TypeVar("I", bound=BaseModel)  # noqa: E741 - input
O = TypeVar("O", bound=BaseModel)  # noqa: E741 - output

MAX_ATTEMPTS: Final = 20
MAX_INPUT_BYTES: Final = 16_384


@dataclass(frozen=True, slots=True)
class TerminalEvents:
    """The types of the terminal events of a kind of work."""

    completed: str
    failed: str


class DurableWork(Generic[I, O]):
    """A kind of work with durable steps that returns its result to the caller.

    `steps(segment, input)` runs each effect by `segment.step`. After a failure it continues at its first step without a
    checkpoint, in any process that hosts this kind. An `RpcError` that is not retryable ends the work as failed.
    """

    def __init__(
        self,
        engine: Engine,
        name: str,
        messages: tuple[type[I], type[O]],
        steps: Callable[[Segment, I], Awaitable[O]],
        endings: TerminalEvents,
        *,
        time_limit: timedelta = timedelta(minutes=5),
    ) -> None:
        self.name = name
        self._engine = engine
        self._input, self._output = messages
        self._steps = steps
        self._endings = endings
        self._time_limit = time_limit
        engine.host(self)

    async def call(self, work_id: str, value: I, *, owner: str, subject: str = "") -> O:
        """Run the work and return its result; a call with a known id returns that one's result.

        Raises:
            RpcError: the work's error; DEADLINE_EXCEEDED if it still runs; INVALID_ARGUMENT for an input over the limit.
        """
        given = value.model_dump(mode="json", exclude_none=True)
        if len(json.dumps(given)) > MAX_INPUT_BYTES:
            raise RpcError.invalid("input", f"is longer than {MAX_INPUT_BYTES} bytes")
        stream = NewStream(
            work_id, self.name, owner, subject, datetime.now(UTC) + self._time_limit, given
        )
        segment = await self._engine.admit(stream, [])
        if segment is not None:
            found = await asyncio.shield(self._engine.begin(segment))
            if isinstance(found, self._output):
                return found
        return await self._outcome(work_id)

    async def run(self, segment: Segment) -> O | None:
        """Make one attempt; the result if it completed."""
        stream = segment.attempt.stream
        try:
            self._require_time(segment)
            result = await self._steps(segment, self._input.model_validate(stream.input))
        except RpcError as error:
            if error.retryable and segment.number < MAX_ATTEMPTS and not self._is_over(segment):
                raise
            body = error.to_body().model_dump(mode="json", by_alias=True, exclude_none=True)
            await segment.finish(self._endings.failed, body)
            return None
        await segment.finish(
            self._endings.completed, {"result": result.model_dump(mode="json", exclude_none=True)}
        )
        return result

    async def recover(self, head: StreamHead) -> bool:
        """Always make another attempt: it continues after the last checkpoint, or fails past the deadline."""
        del head
        return True

    async def settle(self, stream_id: str, owed: Any) -> None:
        """No-op: this kind leaves nothing to settle."""

    async def _outcome(self, work_id: str) -> O:
        """Wait for the outcome of another attempt, in this or another process."""
        try:
            async with asyncio.timeout(self._time_limit.total_seconds()):
                async for batch in self._engine.log.follow(work_id):
                    for event in batch:
                        if event.type == self._endings.completed:
                            return self._output.model_validate(json.loads(event.data)["result"])
                        if event.type == self._endings.failed:
                            raise RpcError.from_status(
                                ErrorBody.model_validate_json(event.data).error
                            )
        except TimeoutError:
            pass
        raise RpcError(ErrorCode.DEADLINE_EXCEEDED, f"{work_id} is still running.")

    def _require_time(self, segment: Segment) -> None:
        if self._is_over(segment):
            raise RpcError(ErrorCode.DEADLINE_EXCEEDED, "The work exceeded its time limit.")

    def _is_over(self, segment: Segment) -> bool:
        deadline = segment.attempt.stream.deadline
        return deadline is not None and datetime.now(UTC) >= deadline
