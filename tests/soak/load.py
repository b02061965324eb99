"""The load of a soak: each worker of a user owns its conversations and records its operations."""

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from tests.chaos.turns import generation
from tests.soak.caller import SEND_SECONDS, Caller, new_key
from tests.soak.ledger import Abandoned
from tests.soak.turns import SoakTurn
from tests.support.history import History
from tests.support.model_server import script_text

ROUNDS: Final = 6
"""Rounds per conversation."""
QUEUED: Final = 3
WORDS: Final = (8, 60)
DELAY_MS: Final = (15, 90)


@dataclass
class OwnedConversation:
    """A conversation: its streamed turns, and the answers of unary turns by turn id."""

    caller: Caller
    conversation: str
    turns: list[SoakTurn] = field(default_factory=list[SoakTurn])
    answers: dict[str, str] = field(default_factory=dict[str, str])
    sent: list[tuple[str, float, float]] = field(default_factory=list[tuple[str, float, float]])
    """Of each unary turn the word in its prompt, and the times of request and response."""


@dataclass
class User:
    """A user: conversations kept, deleted, and of unknown state, and the workers that create them."""

    caller: Caller
    history: History
    source: random.Random
    stopping: asyncio.Event
    conversations: list[OwnedConversation] = field(default_factory=list[OwnedConversation])
    kept: set[str] = field(default_factory=set[str])
    deleted: set[str] = field(default_factory=set[str])
    unknown: set[str] = field(default_factory=set[str])

    async def run(self) -> None:
        """Run all workers until `stopping` is set, and let them end their current work."""
        works = (
            self._append,
            self._append,
            self._stream,
            self._stream,
            self._send,
            self._queue,
            self._cancel,
            self._churn,
        )
        await asyncio.gather(*(self._repeat(work) for work in works))

    async def _repeat(self, work: Callable[[OwnedConversation], Awaitable[None]]) -> None:
        while not self.stopping.is_set():
            try:
                owned = await self._new_conversation()
                for _ in range(ROUNDS):
                    if self.stopping.is_set():
                        return
                    await work(owned)
                    await asyncio.sleep(self.source.uniform(0.05, 0.6))
                    if owned.conversation in self.deleted | self.unknown:
                        break
            except Abandoned:
                continue  # recorded; take the next conversation

    async def _new_conversation(self) -> OwnedConversation:
        key, title = new_key(), uuid.uuid4().hex
        made = await self.caller.must("CreateConversation", key, title=title)
        self.caller.ledger.done["conversations"] += 1
        owned = OwnedConversation(self.caller, made["conversationId"])
        self.conversations.append(owned)
        self.kept.add(owned.conversation)
        if self.source.random() < 0.2:
            again = await self.caller.must("CreateConversation", key, title=title)
            if again["conversationId"] != owned.conversation:
                self.caller.ledger.problem(
                    "one key made two conversations", f"{key}: {made} {again}"
                )
        return owned

    # --- appends ---

    async def _append(self, owned: OwnedConversation) -> None:
        """Two concurrent writers of one conversation, with and without keys; then a reader."""
        count = self.source.randint(1, 8)
        await asyncio.gather(
            self._appends(owned, count, keyed=True), self._appends(owned, count, keyed=False)
        )
        rows = await self.caller.pages(
            "ListMessages", "messages", conversationId=owned.conversation
        )
        if [int(row["seq"]) for row in rows] != list(range(1, len(rows) + 1)):
            self.caller.ledger.problem("seqs with a gap", f"{owned.conversation}: {rows}")

    async def _appends(self, owned: OwnedConversation, count: int, *, keyed: bool) -> None:
        for _ in range(count):
            text = f"{uuid.uuid4().hex} {'x' * self.source.randint(0, 800)}"
            body: dict[str, Any] = {"conversationId": owned.conversation, "text": text}
            async with self.history.operation(
                self.caller.user, "append", owned.conversation, text
            ) as operation:
                if keyed:
                    await self.caller.must("AppendMessage", new_key(), **body)
                    operation.ok()
                elif (answer := await self.caller.once("AppendMessage", None, **body)) and (
                    answer.status == 200
                ):
                    operation.ok()
            self.caller.ledger.done["appends"] += 1

    # --- turns ---

    async def read_status(self, turn: SoakTurn) -> None:
        """Read a turn's status once, for the check of its course."""
        key = turn.ref["turnId"]
        async with self.history.operation(self.caller.user, "status", key, "") as operation:
            answer = await self.caller.once("GetTurn", None, **turn.ref)
            if answer is not None and answer.status == 200:
                operation.value = answer.body["status"]
                operation.ok()

    async def _watch_status(self, turn: SoakTurn) -> None:
        """Read a turn's status again and again until its stream ends."""
        if await turn.begun():
            while turn.task is not None and not turn.task.done():
                await self.read_status(turn)
                await asyncio.wait({turn.task}, timeout=self.source.uniform(0.1, 1))

    def _begin(self, owned: OwnedConversation, **options: Any) -> SoakTurn:
        words = self.source.randint(*WORDS)
        delay = self.source.uniform(*DELAY_MS)
        return SoakTurn.begin(self.caller, owned.conversation, words, delay, **options)

    @asynccontextmanager
    async def _turn(self, owned: OwnedConversation, **options: Any) -> AsyncIterator[SoakTurn]:
        """A turn that is read to its end after the block, and checked; its status is read meanwhile."""
        turn = self._begin(owned, **options)
        watching = asyncio.create_task(self._watch_status(turn))
        async with self.history.operation(
            self.caller.user, "append", owned.conversation, turn.text
        ) as operation:
            try:
                yield turn
                await turn.end()
                operation.ok()
            finally:
                if turn.task is not None:
                    turn.task.cancel()
                watching.cancel()
        [error] = await asyncio.gather(watching, return_exceptions=True)
        if isinstance(error, Exception) and not isinstance(error, Abandoned):
            raise error
        owned.turns.append(turn)
        await turn.check()

    async def _stream(self, owned: OwnedConversation) -> None:
        """A streamed turn, sometimes with a second live reader."""
        async with self._turn(owned) as turn:
            if self.source.random() < 0.3 and await turn.begun():
                await turn.check_live_reader()

    async def _queue(self, owned: OwnedConversation) -> None:
        """Queued turns, of which sometimes one is cancelled."""
        cancelled = self.source.randrange(QUEUED) if self.source.random() < 0.3 else None

        async def one(number: int) -> None:
            is_cancelled = number == cancelled
            async with self._turn(
                owned, admission="ENQUEUE", may_be_cancelled=is_cancelled
            ) as turn:
                if is_cancelled and await turn.begun():
                    await self.caller.must("CancelTurn", **turn.ref)

        await asyncio.gather(*(one(number) for number in range(QUEUED)))

    async def _cancel(self, owned: OwnedConversation) -> None:
        """A turn that is cancelled during its answer."""
        async with self._turn(owned, may_be_cancelled=True) as turn:
            if await turn.begun():
                await turn.shows(self.source.randint(0, turn.words))
                await self.caller.must("CancelTurn", **turn.ref)

    async def _send(self, owned: OwnedConversation) -> None:
        """A unary turn, sometimes sent twice at once with one key."""
        words, word, key = self.source.randint(*WORDS), uuid.uuid4().hex, new_key()
        attempts = [{"text": generation(each + 1, words), "delay_ms": 20} for each in range(4)]
        text = f"{script_text(attempts=attempts)} {word}"
        body = {"conversationId": owned.conversation, "text": text}
        began = time.monotonic()
        times = 2 if self.source.random() < 0.2 else 1
        async with self.history.operation(
            self.caller.user, "append", owned.conversation, text
        ) as operation:
            answers = await asyncio.gather(
                *(
                    self.caller.until_known("SendMessage", key, wait=SEND_SECONDS, **body)
                    for _ in range(times)
                )
            )
            if all(each.status == 200 for each in answers):
                operation.ok()
        statuses = {(each.status, each.code) for each in answers}
        if statuses != {(200, None)}:
            self.caller.ledger.problem(f"SendMessage: {sorted(statuses, key=str)}", f"{answers}")
            return
        if any(each.body != answers[0].body for each in answers):
            self.caller.ledger.problem("one key, two replies", f"{answers}")
        owned.sent.append((word, began, time.monotonic()))
        message = answers[0].body["message"]
        owned.answers[answers[0].body["turn"]["turnId"]] = message["text"]
        self.caller.ledger.done["turns sent"] += 1

    # --- creation and deletion ---

    async def _churn(self, owned: OwnedConversation) -> None:
        """Delete the conversation: empty, with a message, or during a turn."""
        what, turn = self.source.randrange(3), None
        if what == 1:
            await self._appends(owned, 1, keyed=True)
        elif what == 2:
            turn = self._begin(owned, may_be_cancelled=True, may_be_gone=True)
            await turn.begun()
        self.unknown.add(owned.conversation)
        self.kept.discard(owned.conversation)
        try:
            await self._delete(owned.conversation)
        finally:
            if turn is not None:
                await self._end_of_deleted(turn)

    async def _delete(self, conversation: str) -> None:
        keyed = new_key() if self.source.random() < 0.5 else None
        answer = await self.caller.until_known(
            "DeleteConversation", keyed, conversationId=conversation
        )
        if answer.status != 200:
            kind = f"DeleteConversation {'with' if keyed else 'without'} key: {answer.status}"
            self.caller.ledger.problem(kind, f"{conversation}: {answer.body}")
            if answer.status != 404:
                raise Abandoned(kind)
        self.unknown.discard(conversation)
        self.deleted.add(conversation)
        self.caller.ledger.done["deletions"] += 1
        found = await self.caller.until_known("GetConversation", None, conversationId=conversation)
        if found.status != 404:
            self.caller.ledger.problem("a deleted conversation exists", f"{conversation} {found}")

    async def _end_of_deleted(self, turn: SoakTurn) -> None:
        try:
            await turn.end()
        except Abandoned:
            return
