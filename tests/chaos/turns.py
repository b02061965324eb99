"""Turns under fire: a client that never gives up, and the judgement of what became of the turn."""

import asyncio
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from services.contracts.llm.turns import TurnStatus
from tests.support.checkers import check_seqs, check_statuses
from tests.support.model_server import script_text
from tests.support.patience import until_ok
from tests.support.platform import Client, Platform
from tests.support.sse import Fold, StreamClient
from tests.support.wait import wait_until

WORDS: Final = 40
ATTEMPTS: Final = 6
MIDDLE: Final = 20
"""How much of an answer is shown before its fault."""
EDGES: Final = {"QUEUED": ["RUNNING", "CANCELLED"], "RUNNING": ["COMPLETED", "FAILED", "CANCELLED"]}
TERMINAL: Final = ("COMPLETED", "FAILED", "CANCELLED")
STATUS_OF: Final = {
    "run.completed": TurnStatus.COMPLETED,
    "run.failed": TurnStatus.FAILED,
    "run.cancelled": TurnStatus.CANCELLED,
}


def generation(attempt: int) -> str:
    """What the model says at its n-th try: each try has words of its own, so that a splice of two would show."""
    return " ".join(f"try{attempt}-word{number}" for number in range(WORDS))


def script(**every: Any) -> list[dict[str, Any]]:
    """The model's tries of one turn; none is like another."""
    return [{"text": generation(each + 1), "delay_ms": 5, **every} for each in range(ATTEMPTS)]


@dataclass
class TurnUnderFire:
    """One turn of a conversation of its own, and its client: same key at each retry, `Last-Event-ID` at each resume."""

    client: Client
    conversation: str
    text: str
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    statuses: list[str] = field(default_factory=list[str])
    ended_at: float = 0.0
    may_be_cancelled: bool = False
    _stream: StreamClient | None = None
    _reading: asyncio.Task[Fold] | None = None

    @classmethod
    async def begin(
        cls,
        client: Client,
        tries: list[dict[str, Any]],
        *,
        may_be_cancelled: bool = False,
        conversation: str | None = None,
    ) -> Self:
        """Begin it, in a new conversation unless one is given; the stream is read in the background."""
        text = f"{script_text(attempts=tries)} {uuid.uuid4().hex}"
        own = conversation or await client.conversation()
        turn = cls(client, own, text, may_be_cancelled=may_be_cancelled)
        turn._stream = StreamClient(
            client.session,
            client.path("StreamMessage"),
            headers=client.headers(turn._key_header()),
            body={"conversationId": turn.conversation, "text": turn.text},
        )
        turn._reading = asyncio.create_task(turn._read())
        return turn

    @property
    def fold(self) -> Fold:
        """What the client has seen so far."""
        assert self._stream is not None
        return self._stream.fold

    @property
    def reading(self) -> asyncio.Task[Fold]:
        """The task that ends with the stream."""
        assert self._reading is not None
        return self._reading

    @property
    def ref(self) -> dict[str, Any]:
        """The turn, once its first event is there."""
        return {
            "conversationId": self.conversation,
            "turnId": self.fold.events[0]["data"]["turnId"],
        }

    async def model_calls(self, platform: Platform) -> int:
        """How often the model was asked for this turn."""
        journal = await platform.model("/__journal")
        return sum(self.text.split()[-1] in entry["prompt"] for entry in journal["entries"])

    async def shows(self, words: int) -> None:
        """Wait until that much of the answer has been shown: so many words are durable."""
        await wait_until(
            lambda: len(self.fold.text.split()) >= words, 20, f"{words} words of {self.key}"
        )

    async def ended(self) -> Fold:
        """The stream to its terminal event."""
        return await self.reading

    def abandon(self) -> None:
        """Stop reading."""
        if self._reading is not None:
            self._reading.cancel()

    async def problems(self) -> list[str]:
        """Everything that breaks I1 to I5 for this turn; seqs, the terminal event and frames are the reader's."""
        fold = await self.ended()
        again = await self._read_again()
        turn = await until_ok(self.client, "GetTurn", **self.ref)
        listed = await until_ok(
            self.client, "ListMessages", conversationId=self.conversation, limit=100
        )
        messages = listed["messages"]
        status = turn["status"]
        found = check_statuses([*self.statuses, status], EDGES, TERMINAL)
        found += check_seqs([int(each["seq"]) for each in messages])
        if fold.terminal is None or STATUS_OF[fold.terminal] != status:
            found.append(f"the stream ended by {fold.terminal}, the turn is {status}")
        if again != fold.raw:
            found.append("a second reader got other events")
        wanted = ("COMPLETED", "CANCELLED") if self.may_be_cancelled else ("COMPLETED",)
        if status not in wanted:
            found.append(f"{status}: {turn.get('error')}")
        return [f"{self.key}: {each}" for each in found + self._texts(messages, status)]

    def _texts(self, messages: list[dict[str, Any]], status: str) -> list[str]:
        users = [each for each in messages if each["role"] == "USER"]
        answers = [each for each in messages if each["role"] == "ASSISTANT"]
        found: list[str] = []
        if [each["text"] for each in users] != [self.text]:
            found.append(f"{len(users)} user messages")
        if len(answers) > 1 or (status == "COMPLETED" and not answers):
            found.append(f"{len(answers)} answers")
        if answers and answers[0]["text"] != self.fold.text:
            found.append(f"committed {answers[0]['text'][:80]!r}, shown {self.fold.text[:80]!r}")
        whole = [generation(each + 1) for each in range(ATTEMPTS)]
        if status == "COMPLETED" and self.fold.text not in whole:
            found.append(f"spliced: {self.fold.text!r}")
        if not any(each.startswith(self.fold.text.rstrip()) for each in whole):
            found.append(f"no beginning of any generation: {self.fold.text!r}")
        return found

    async def _read(self) -> Fold:
        assert self._stream is not None
        fold = await self._stream.run(timeout=150)
        self.ended_at = time.monotonic()
        return fold

    async def _read_again(self) -> list[str]:
        reader = StreamClient(
            self.client.session,
            self.client.path("StreamEvents"),
            headers=self.client.headers(),
            body=self.ref,
        )
        return (await reader.run()).raw

    def _key_header(self) -> Mapping[str, str]:
        return {"idempotency-key": self.key}


async def next_turn_works(turn: TurnUnderFire) -> None:
    """The conversation answers a further message."""
    sent = await until_ok(
        turn.client, "SendMessage", conversationId=turn.conversation, text="and now?"
    )
    assert sent["turn"]["status"] == "COMPLETED"


async def release(platform: Platform, gate: str) -> None:
    """Let the model go on."""
    await platform.model("/__gate", {"action": "release", "name": gate})


async def held_at(platform: Platform, gate: str, count: int) -> None:
    """Wait until so many calls of the model stand at a gate."""

    async def standing() -> bool:
        waiting = (await platform.model("/__gate"))["waiting"]
        return sum(each["name"] == gate for each in waiting) >= count

    await wait_until(standing, 20, f"{count} calls at {gate}")
