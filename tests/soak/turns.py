"""A streamed turn under random faults and cuts, and its checks."""

import asyncio
import random
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Self

from tests.chaos.turns import STATUS_OF, generation, shown_text_problems
from tests.soak.caller import Caller, new_key
from tests.soak.ledger import Abandoned, Ledger
from tests.support.checkers import check_ledger
from tests.support.model_server import script_text
from tests.support.sse import RETRIED_STATUSES, Fold, MalformedStream, StreamClient

ATTEMPTS: Final = 4
CUT_PROBABILITY: Final = 0.05
NEVER: Final = 86_400.0
"""Seconds; `Ledger.is_overdue` bounds how long a stream is read."""
RESTARTS: Final = frozenset({"llm", "postgres", "model"})
"""A fault of these can end an attempt and justifies one more model call."""
MODEL: Final = frozenset({"model"})
PROMPT_TOKENS: Final = 7
"""What the model reports for each prompt; of an answer it reports the words."""


@dataclass
class SoakTurn:
    """A turn, read by the client that began it, which resumes by key and `Last-Event-ID`."""

    caller: Caller
    conversation: str
    words: int
    text: str
    word: str
    stream: StreamClient
    key: str
    may_be_cancelled: bool = False
    may_be_gone: bool = False
    began: float = field(default_factory=time.monotonic)
    ended: float = 0.0
    usage: int = 0
    """The tokens booked for a completed turn."""
    task: asyncio.Task[Fold] | None = None

    @classmethod
    def begin(
        cls,
        caller: Caller,
        conversation: str,
        words: int,
        delay_ms: float,
        *,
        admission: str = "REJECT",
        may_be_cancelled: bool = False,
        may_be_gone: bool = False,
    ) -> Self:
        """Begin a turn and read its stream in the background."""
        every = {"delay_ms": delay_ms, "prompt_tokens": PROMPT_TOKENS}
        attempts = [{"text": generation(each + 1, words), **every} for each in range(ATTEMPTS)]
        word, key = uuid.uuid4().hex, new_key()
        text = f"{script_text(attempts=attempts)} {word}"
        body = {"conversationId": conversation, "text": text, "admission": admission}
        stream = _reader(caller, "StreamMessage", body, {"idempotency-key": key})
        turn = cls(caller, conversation, words, text, word, stream, key)
        turn.may_be_cancelled, turn.may_be_gone = may_be_cancelled, may_be_gone
        turn.task = asyncio.create_task(stream.run(timeout=NEVER))
        return turn

    @property
    def fold(self) -> Fold:
        """The events read so far."""
        return self.stream.fold

    @property
    def ref(self) -> dict[str, Any]:
        """Ids of the turn; needs its first event."""
        return {
            "conversationId": self.conversation,
            "turnId": self.fold.events[0]["data"]["turnId"],
        }

    async def begun(self) -> bool:
        """Wait for the first event; False if the stream ended without one."""
        await self._until(lambda: bool(self.fold.events), "never began")
        return bool(self.fold.events)

    async def shows(self, words: int) -> None:
        """Wait until so many words are shown or the turn has ended."""
        await self._until(lambda: len(self.fold.text.split()) >= words, "never continued")

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        assert self.task is not None
        while not condition() and not self.task.done():
            self._require_time(what)
            await asyncio.wait({self.task}, timeout=0.05)

    async def end(self) -> Fold:
        """Read to the terminal event.

        Raises:
            Abandoned: none came in time, or the stream was malformed; recorded.
        """
        assert self.task is not None
        if self.ended:
            return self.task.result()
        try:
            await self._until_done(self.task, "never ended")
            return self.task.result()
        except MalformedStream as error:
            # Its conversation was deleted: the stream was refused, or ended when the tuples were deleted.
            gone = "not a stream: 404" in str(error) or '"code":"NOT_FOUND"' in str(error)
            if not (self.may_be_gone and gone):
                self._problem("a malformed stream", str(error))
            raise Abandoned("stream") from error
        finally:
            self.ended = time.monotonic()
            self.task.cancel()
            _count(self.caller, self.stream)

    async def check(self) -> None:
        """Compare the shown events with those of another reader and with the turn's status."""
        await self.check_reader(_reader(self.caller, "StreamEvents", self.ref, {}, cuts=False))
        turn = await self.caller.must("GetTurn", **self.ref)
        self._check_status(turn)

    async def check_live_reader(self) -> None:
        """Read the live stream with a second client, whose connection is cut as well, and compare."""
        await self.check_reader(_reader(self.caller, "StreamEvents", self.ref, {}))

    async def check_reader(self, reader: StreamClient) -> None:
        """Read to the end and compare with the events of the first client."""
        reading = asyncio.create_task(reader.run(timeout=NEVER))
        try:
            await self._until_done(reading, "has a reader without a terminal event")
            if reading.result().raw != (await self.end()).raw:
                self._problem("readers got other bytes", f"{self.fold.raw} {reader.fold.raw}")
        except MalformedStream as error:
            self._problem("a malformed stream", f"of another reader: {error}")
        finally:
            reading.cancel()
            _count(self.caller, reader)

    async def _until_done(self, task: "asyncio.Task[Fold]", what: str) -> None:
        while not task.done():
            self._require_time(what)
            await asyncio.wait({task}, timeout=1)

    def _check_status(self, turn: dict[str, Any]) -> None:
        status, terminal = turn["status"], self.fold.terminal
        if terminal is None or STATUS_OF[terminal] != status:
            self._problem("terminal event and status differ", f"{terminal}, {status}")
        if status == "CANCELLED" and not self.may_be_cancelled:
            self._problem("cancelled without a request", str(turn))
        if status == "FAILED" and not self._faults(MODEL):
            self._problem("failed without a fault of the model", str(turn.get("error")))
        self.caller.ledger.done[f"turns {status.lower()}"] += 1
        self.caller.ledger.done["attempts restarted"] += self.fold.restarts
        generations = [generation(each + 1, self.words) for each in range(ATTEMPTS)]
        for each in shown_text_problems(self.fold.text, status, generations):
            self._problem("spliced", each)
        if status == "COMPLETED":
            self._check_usage(turn.get("usage", {}))

    def _check_usage(self, usage: dict[str, Any]) -> None:
        """What the model reported; attempts that were cut off are estimated, and come on top."""
        booked = int(usage.get("totalTokens", 0))
        reported = [PROMPT_TOKENS, self.words]
        if usage.get("estimated"):
            reported.append(max(0, booked - sum(reported)))
        for each in check_ledger({"usage": booked}, {"usage": reported}):
            self._problem("usage that does not add up", f"{each}, {usage}")
        self.usage = booked

    def check_model_calls(self, calls: int) -> None:
        check_model_calls(self.caller.ledger, self.word, calls, self.began, self.ended)

    def _faults(self, targets: frozenset[str]) -> int:
        return self.caller.ledger.faults_within(targets, self.began - 5, self.ended)

    def _require_time(self, what: str) -> None:
        if self.caller.ledger.is_overdue(self.began):
            seen = f"seq {self.fold.seq}, {self.stream.connections} connections, {self.stream.failures[-3:]}"
            self._problem(f"a turn that {what}", seen)
            raise Abandoned(what)

    def _problem(self, kind: str, detail: str) -> None:
        named = self.fold.events[0]["data"].get("turnId") if self.fold.events else self.key
        self.caller.ledger.problem(kind, f"{self.conversation} {named}: {detail}")


def check_model_calls(ledger: Ledger, word: str, calls: int, began: float, ended: float) -> None:
    """A turn needs one model call, and one more for each fault that can have ended an attempt."""
    ledger.done["model calls"] += calls
    faults = ledger.faults_within(RESTARTS, began - 5, ended)
    if calls > 1 + faults:
        ledger.problem("too many model calls", f"{word}: {calls} calls, {faults} faults")


def _reader(
    caller: Caller,
    method: str,
    body: dict[str, Any],
    headers: dict[str, str],
    *,
    cuts: bool = True,
) -> StreamClient:
    return caller.client.reader(
        method,
        body,
        headers,
        random_cuts=random.Random(caller.source.random()) if cuts else None,
        cut_probability=CUT_PROBABILITY,
        retried=RETRIED_STATUSES | {409, 499},
        pause=0.5,
    )


def _count(caller: Caller, stream: StreamClient) -> None:
    """Record a stream's connections."""
    ledger, failed = caller.ledger, len(stream.failures)
    if stream.connections > failed:
        ledger.attempt(True, count=stream.connections - failed)
    for each in stream.failures:
        ledger.attempt(False, f"stream: {each[:60]}")
        if "'500:" in each or '"500:' in each or '"INTERNAL"' in each:
            ledger.problem("500", f"on a stream: {each}")
    ledger.done["connections"] += stream.connections
