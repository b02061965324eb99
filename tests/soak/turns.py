"""A streamed turn under random faults, cuts and readers, and what is wrong with it."""

import asyncio
import random
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Self

from tests.chaos.turns import EDGES, STATUS_OF, TERMINAL
from tests.soak.caller import Caller, new_key
from tests.soak.ledger import GaveUp, Ledger
from tests.support.checkers import check_statuses
from tests.support.model_server import script_text
from tests.support.sse import RETRIED_STATUSES, Fold, MalformedStream, StreamClient

TRIES: Final = 4
CUT_PROBABILITY: Final = 0.05
NEVER: Final = 86_400.0
"""Seconds; the soak itself bounds how long a stream is read."""
RESTARTS: Final = frozenset({"llm", "postgres", "model"})
"""A fault of these may end an attempt at an answer, and justifies one more call of the model."""
MODEL: Final = frozenset({"model"})


def generation(attempt: int, words: int) -> str:
    """What the model says at its n-th try: words of one to four bytes a character, no two tries alike."""
    return " ".join(f"é-日-🙂-{attempt}-{number}" for number in range(words))


@dataclass
class SoakTurn:
    """One turn, read by the client that began it, which resumes by its key and `Last-Event-ID`."""

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
        """Begin it; it is read in the background through whatever happens."""
        tries = [
            {"text": generation(each + 1, words), "delay_ms": delay_ms} for each in range(TRIES)
        ]
        word, key = uuid.uuid4().hex, new_key()
        text = f"{script_text(attempts=tries)} {word}"
        body = {"conversationId": conversation, "text": text, "admission": admission}
        stream = _reader(caller, "StreamMessage", body, {"idempotency-key": key})
        turn = cls(caller, conversation, words, text, word, stream, key)
        turn.may_be_cancelled, turn.may_be_gone = may_be_cancelled, may_be_gone
        turn.task = asyncio.create_task(stream.run(timeout=NEVER))
        return turn

    @property
    def fold(self) -> Fold:
        """What the client has seen so far."""
        return self.stream.fold

    @property
    def ref(self) -> dict[str, Any]:
        """The turn, once its first event is there."""
        return {
            "conversationId": self.conversation,
            "turnId": self.fold.events[0]["data"]["turnId"],
        }

    async def begun(self) -> bool:
        """Whether it has begun; waits for its first event, or for the stream's end without one."""
        await self._until(lambda: bool(self.fold.events), "never began")
        return bool(self.fold.events)

    async def shows(self, words: int) -> None:
        """Wait until so much of the answer is shown, or the turn has ended."""
        await self._until(lambda: len(self.fold.text.split()) >= words, "never went on")

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        assert self.task is not None
        while not condition() and not self.task.done():
            self._require_time(what)
            await asyncio.wait({self.task}, timeout=0.05)

    async def end(self) -> Fold:
        """Read to the terminal event.

        Raises:
            GaveUp: there is none within the bound, or the stream broke a promise; noted.
        """
        assert self.task is not None
        if self.ended:
            return self.task.result()
        try:
            await self._until_done(self.task, "never ended")
            return self.task.result()
        except MalformedStream as error:
            # Its conversation was deleted under it: refused, or cut off once its tuples are gone.
            gone = "not a stream: 404" in str(error) or '"code":"NOT_FOUND"' in str(error)
            if not (self.may_be_gone and gone):
                self._problem("a malformed stream", str(error))
            raise GaveUp("stream") from error
        finally:
            self.ended = time.monotonic()
            self.task.cancel()
            _count(self.caller, self.stream)

    async def check(self) -> None:
        """Compare what was shown with what every other reader gets, and with the turn's status."""
        await self.check_reader(_reader(self.caller, "StreamEvents", self.ref, {}, cuts=False))
        turn = await self.caller.must("GetTurn", **self.ref)
        self._check_status(turn)

    async def check_beside(self) -> None:
        """Read it live beside the client that began it, and compare; the connection is torn here too."""
        await self.check_reader(_reader(self.caller, "StreamEvents", self.ref, {}))

    async def check_reader(self, reader: StreamClient) -> None:
        """Read to the end, and compare with what the client that began the turn was shown."""
        reading = asyncio.create_task(reader.run(timeout=NEVER))
        try:
            await self._until_done(reading, "has a reader without an end")
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
        for each in check_statuses([status], EDGES, TERMINAL):
            self._problem("a turn that is open", each)
        if terminal is None or STATUS_OF[terminal] != status:
            self._problem("terminal event and status differ", f"{terminal}, {status}")
        if status == "CANCELLED" and not self.may_be_cancelled:
            self._problem("cancelled by nobody", str(turn))
        if status == "FAILED" and not self._faults(MODEL):
            self._problem("failed without a fault of the model", str(turn.get("error")))
        self.caller.ledger.done[f"turns {status.lower()}"] += 1
        self.caller.ledger.done["attempts restarted"] += self.fold.restarts
        whole = [generation(each + 1, self.words) for each in range(TRIES)]
        shown = self.fold.text
        if status == "COMPLETED" and shown not in whole:
            self._problem("spliced", f"{self.ref}: {shown!r}")
        if not any(each.startswith(shown.rstrip()) for each in whole):
            self._problem("spliced", f"{self.ref}: no beginning of any generation: {shown!r}")

    def check_model_calls(self, calls: int) -> None:
        """The model was asked once, or faults have ended attempts."""
        check_model_calls(self.caller.ledger, self.word, calls, self.began, self.ended)

    def _faults(self, targets: frozenset[str]) -> int:
        return self.caller.ledger.faults_within(targets, self.began - 5, self.ended)

    def _require_time(self, what: str) -> None:
        if self.caller.ledger.is_overdue(self.began):
            seen = f"seq {self.fold.seq}, {self.stream.connections} connections, {self.stream.failures[-3:]}"
            self._problem(f"a turn that {what}", seen)
            raise GaveUp(what)

    def _problem(self, kind: str, detail: str) -> None:
        named = self.fold.events[0]["data"].get("turnId") if self.fold.events else self.key
        self.caller.ledger.problem(kind, f"{self.conversation} {named}: {detail}")


def check_model_calls(ledger: Ledger, word: str, calls: int, began: float, ended: float) -> None:
    """One call for a turn, and one more for each fault that may have ended an attempt."""
    ledger.done["model calls"] += calls
    faults = ledger.faults_within(RESTARTS, began - 5, ended)
    if calls > 1 + faults:
        ledger.problem("the model was asked too often", f"{word}: {calls} calls, {faults} faults")


def _reader(
    caller: Caller,
    method: str,
    body: dict[str, Any],
    headers: dict[str, str],
    *,
    cuts: bool = True,
) -> StreamClient:
    return StreamClient(
        caller.client.session,
        caller.client.path(method),
        headers=caller.client.headers(headers),
        body=body,
        random_cuts=random.Random(caller.source.random()) if cuts else None,
        cut_probability=CUT_PROBABILITY,
        retried=RETRIED_STATUSES | {409, 499},
        pause=0.5,
    )


def _count(caller: Caller, stream: StreamClient) -> None:
    """Enter a stream's connections into the ledger."""
    ledger, failed = caller.ledger, len(stream.failures)
    if stream.connections > failed:
        ledger.attempt(True, count=stream.connections - failed)
    for each in stream.failures:
        ledger.attempt(False, f"stream: {each[:60]}")
        if "'500:" in each or '"500:' in each or '"INTERNAL"' in each:
            ledger.problem("500", f"on a stream: {each}")
    ledger.done["connections"] += stream.connections
