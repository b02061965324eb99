"""Turns observed while faults happen, and the checks of their invariants."""

import asyncio
import time
import uuid
from dataclasses import dataclass, field
from typing import Any, Final, Self

from services.contracts.llm.turns import TurnStatus
from tests.support.checkers import check_seqs
from tests.support.model_server import script_text
from tests.support.platform import Client, Platform
from tests.support.retries import until_ok
from tests.support.sse import Fold, StreamClient
from tests.support.wait import wait_until

WORDS: Final = 40
ATTEMPTS: Final = 6
MIDDLE: Final = 20
"""Words shown before the fault."""
STATUS_OF: Final = {
    "run.completed": TurnStatus.COMPLETED,
    "run.failed": TurnStatus.FAILED,
    "run.cancelled": TurnStatus.CANCELLED,
}


def generation(attempt: int, words: int = WORDS) -> str:
    """The model's answer to its n-th call: 1 to 4 bytes a character, and different per attempt to expose splices."""
    return " ".join(f"é-日-🙂-{attempt}-{number}" for number in range(words))


def script(**every: Any) -> list[dict[str, Any]]:
    """Scripts of the model for each attempt of a turn; `every` applies to all."""
    return [{"text": generation(each + 1), "delay_ms": 5, **every} for each in range(ATTEMPTS)]


def script_held_once(gate: str) -> list[dict[str, Any]]:
    """The same, with the first attempt held at a gate in the middle of its answer."""
    attempts = script()
    attempts[0] |= {"gate": gate, "gate_after": MIDDLE}
    return attempts


def shown_text_problems(shown: str, status: str, generations: list[str]) -> list[str]:
    """A shown text is a prefix of one generation, and all of it if the turn completed."""
    if status == TurnStatus.COMPLETED and shown not in generations:
        return [f"spliced: {shown!r}"]
    if not any(each.startswith(shown.rstrip()) for each in generations):
        return [f"not a prefix of any generation: {shown!r}"]
    return []


@dataclass
class ObservedTurn:
    """A turn and the client that began it, which retries with one key and resumes by `Last-Event-ID`."""

    client: Client
    conversation: str
    text: str
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    ended_at: float = 0.0
    may_be_cancelled: bool = False
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    _stream: StreamClient | None = None
    _reading: asyncio.Task[Fold] | None = None

    @classmethod
    async def begin(
        cls,
        client: Client,
        attempts: list[dict[str, Any]],
        *,
        may_be_cancelled: bool = False,
        conversation: str | None = None,
        **options: Any,
    ) -> Self:
        """Begin a turn, by default in a new conversation, and read its stream in the background.

        `options` are further fields of the request, such as `admission`.
        """
        text = f"{script_text(attempts=attempts)} {uuid.uuid4().hex}"
        own = conversation or await client.conversation()
        turn = cls(client, own, text, may_be_cancelled=may_be_cancelled, options=options)
        turn._stream = turn.repeat(client)
        turn._reading = asyncio.create_task(turn._read())
        return turn

    def repeat(self, client: Client) -> StreamClient:
        """A reader that repeats the request with the same key."""
        body = {"conversationId": self.conversation, "text": self.text, **self.options}
        return client.reader("StreamMessage", body, {"idempotency-key": self.key})

    @property
    def fold(self) -> Fold:
        """The events read so far."""
        assert self._stream is not None
        return self._stream.fold

    @property
    def reading(self) -> asyncio.Task[Fold]:
        """The task that reads the stream."""
        assert self._reading is not None
        return self._reading

    @property
    def ref(self) -> dict[str, Any]:
        """Ids of the turn; needs its first event."""
        turn_id = self.fold.events[0]["data"]["turnId"]
        return {"conversationId": self.conversation, "turnId": turn_id}

    async def model_calls(self, platform: Platform) -> int:
        """How many times the model was called for this turn."""
        return len(await platform.model_calls(self.text.split()[-1]))

    async def shows(self, words: int) -> None:
        """Wait until so many words are shown; shown words are durable."""
        await wait_until(
            lambda: len(self.fold.text.split()) >= words, 20, f"{words} words of {self.key}"
        )

    async def ended(self) -> Fold:
        """Read to the terminal event."""
        return await self.reading

    def abandon(self) -> None:
        if self._reading is not None:
            self._reading.cancel()

    async def problems(self) -> list[str]:
        """Violations: status, messages, bytes of a second reader. `Fold` checks seqs and the terminal event."""
        fold = await self.ended()
        again = await self.client.reader("StreamEvents", self.ref).run()
        turn = await until_ok(self.client, "GetTurn", **self.ref)
        listed = await until_ok(
            self.client, "ListMessages", conversationId=self.conversation, limit=100
        )
        messages, status = listed["messages"], turn["status"]
        found = check_seqs([int(each["seq"]) for each in messages])
        if fold.terminal is None or STATUS_OF[fold.terminal] != status:
            found.append(f"the stream ended with {fold.terminal}, the turn is {status}")
        if again.raw != fold.raw:
            found.append("a second reader got other events")
        wanted = ("COMPLETED", "CANCELLED") if self.may_be_cancelled else ("COMPLETED",)
        if status not in wanted:
            found.append(f"{status}: {turn.get('error')}")
        return [f"{self.key}: {each}" for each in found + self._text_problems(messages, status)]

    def _text_problems(self, messages: list[dict[str, Any]], status: str) -> list[str]:
        own = [each for each in messages if each["turnId"] == self.ref["turnId"]]
        users = [each for each in own if each["role"] == "USER"]
        answers = [each for each in own if each["role"] == "ASSISTANT"]
        found: list[str] = []
        if [each["text"] for each in users] != [self.text]:
            found.append(f"{len(users)} user messages")
        if len(answers) > 1 or (status == "COMPLETED" and not answers):
            found.append(f"{len(answers)} answers")
        if answers and answers[0]["text"] != self.fold.text:
            found.append(f"committed {answers[0]['text'][:80]!r}, shown {self.fold.text[:80]!r}")
        generations = [generation(each + 1) for each in range(ATTEMPTS)]
        return found + shown_text_problems(self.fold.text, status, generations)

    async def _read(self) -> Fold:
        assert self._stream is not None
        fold = await self._stream.run(timeout=150)
        self.ended_at = time.monotonic()
        return fold


async def problems_of(turns: list[ObservedTurn]) -> list[str]:
    found = await asyncio.gather(*(turn.problems() for turn in turns))
    return [each for those in found for each in those]


async def next_turn_works(turn: ObservedTurn) -> None:
    """The conversation answers a further message."""
    sent = await until_ok(
        turn.client, "SendMessage", conversationId=turn.conversation, text="and now?"
    )
    assert sent["turn"]["status"] == "COMPLETED"
