"""What users do during a soak; each worker owns its conversations, and notes what it did to them."""

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from tests.soak.caller import SEND_SECONDS, Caller, new_key
from tests.soak.ledger import GaveUp
from tests.soak.turns import SoakTurn, generation
from tests.support.history import History
from tests.support.model_server import script_text

ROUNDS: Final = 6
"""How many rounds a conversation is used before its worker takes a new one."""
QUEUED: Final = 3
WORDS: Final = (8, 60)
DELAY_MS: Final = (15, 90)


@dataclass
class Book:
    """One conversation: the turns that were shown to their end, and the ids of unary ones with what was answered."""

    caller: Caller
    conversation: str
    turns: list[SoakTurn] = field(default_factory=list[SoakTurn])
    answers: dict[str, str] = field(default_factory=dict[str, str])
    sent: list[tuple[str, float, float]] = field(default_factory=list[tuple[str, float, float]])
    """Of each unary turn the word in its prompt, and when it was asked and answered."""


@dataclass
class User:
    """One user: what she has, what she deleted, and what she does until she is told to stop."""

    caller: Caller
    history: History
    source: random.Random
    stopping: asyncio.Event
    books: list[Book] = field(default_factory=list[Book])
    kept: set[str] = field(default_factory=set[str])
    deleted: set[str] = field(default_factory=set[str])
    unknown: set[str] = field(default_factory=set[str])

    async def live(self) -> None:
        """Do everything at once until told to stop; what is under way is brought to its end."""
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

    async def _repeat(self, work: Callable[[Book], Awaitable[None]]) -> None:
        while not self.stopping.is_set():
            try:
                book = await self._new_book()
                for _ in range(ROUNDS):
                    if self.stopping.is_set():
                        return
                    await work(book)
                    await asyncio.sleep(self.source.uniform(0.05, 0.6))
                    if book.conversation in self.deleted | self.unknown:
                        break
            except GaveUp:
                continue  # it is noted; the next conversation

    async def _new_book(self) -> Book:
        key, title = new_key(), uuid.uuid4().hex
        made = await self.caller.must("CreateConversation", key, title=title)
        self.caller.ledger.done["conversations"] += 1
        book = Book(self.caller, made["conversationId"])
        self.books.append(book)
        self.kept.add(book.conversation)
        if self.source.random() < 0.2:
            again = await self.caller.must("CreateConversation", key, title=title)
            if again["conversationId"] != book.conversation:
                self.caller.ledger.problem("a key made two", f"{key}: {made} {again}")
        return book

    # --- appends ---

    async def _append(self, book: Book) -> None:
        """Two writers of one conversation, one of which has keys; then a reader."""
        count = self.source.randint(1, 8)
        await asyncio.gather(
            self._appends(book, count, keyed=True), self._appends(book, count, keyed=False)
        )
        rows = await self.caller.pages("ListMessages", "messages", conversationId=book.conversation)
        if [int(row["seq"]) for row in rows] != list(range(1, len(rows) + 1)):
            self.caller.ledger.problem("seqs with a gap", f"{book.conversation}: {rows}")

    async def _appends(self, book: Book, count: int, *, keyed: bool) -> None:
        for _ in range(count):
            text = f"{uuid.uuid4().hex} {'x' * self.source.randint(0, 800)}"
            body: dict[str, Any] = {"conversationId": book.conversation, "text": text}
            async with self.history.operation(
                self.caller.user, "append", book.conversation, text
            ) as attempt:
                if keyed:
                    await self.caller.must("AppendMessage", new_key(), **body)
                    attempt.ok()
                elif (answer := await self.caller.once("AppendMessage", None, **body)) is None:
                    pass  # nobody knows
                elif answer.status == 200:
                    attempt.ok()
            self.caller.ledger.done["appends"] += 1

    # --- turns ---

    def _begin(self, book: Book, **options: Any) -> SoakTurn:
        words = self.source.randint(*WORDS)
        delay = self.source.uniform(*DELAY_MS)
        return SoakTurn.begin(self.caller, book.conversation, words, delay, **options)

    @asynccontextmanager
    async def _turn(self, book: Book, **options: Any) -> AsyncIterator[SoakTurn]:
        """A turn that is shown to its end after the block, and judged."""
        turn = self._begin(book, **options)
        async with self.history.operation(
            self.caller.user, "append", book.conversation, turn.text
        ) as attempt:
            try:
                yield turn
                await turn.end()
                attempt.ok()
            finally:
                if turn.task is not None:
                    turn.task.cancel()
        book.turns.append(turn)
        await turn.check()

    async def _stream(self, book: Book) -> None:
        """A streamed turn; sometimes with a second live reader."""
        async with self._turn(book) as turn:
            if self.source.random() < 0.3 and await turn.begun():
                await turn.check_beside()

    async def _queue(self, book: Book) -> None:
        """Turns that wait for each other; sometimes one of them is cancelled."""
        cancelled = self.source.randrange(QUEUED) if self.source.random() < 0.3 else None

        async def one(number: int) -> None:
            is_cancelled = number == cancelled
            async with self._turn(book, admission="ENQUEUE", may_be_cancelled=is_cancelled) as turn:
                if is_cancelled and await turn.begun():
                    await self.caller.must("CancelTurn", **turn.ref)

        await asyncio.gather(*(one(number) for number in range(QUEUED)))

    async def _cancel(self, book: Book) -> None:
        """A turn that is cancelled somewhere in its answer."""
        async with self._turn(book, may_be_cancelled=True) as turn:
            if await turn.begun():
                await turn.shows(self.source.randint(0, turn.words))
                await self.caller.must("CancelTurn", **turn.ref)

    async def _send(self, book: Book) -> None:
        """A unary turn; sometimes asked twice at once with one key."""
        words, word, key = self.source.randint(*WORDS), uuid.uuid4().hex, new_key()
        tries = [{"text": generation(each + 1, words), "delay_ms": 20} for each in range(4)]
        text = f"{script_text(attempts=tries)} {word}"
        body = {"conversationId": book.conversation, "text": text}
        began = time.monotonic()
        times = 2 if self.source.random() < 0.2 else 1
        async with self.history.operation(
            self.caller.user, "append", book.conversation, text
        ) as attempt:
            answers = await asyncio.gather(
                *(
                    self.caller.until_known("SendMessage", key, wait=SEND_SECONDS, **body)
                    for _ in range(times)
                )
            )
            if all(each.status == 200 for each in answers):
                attempt.ok()
        statuses = {(each.status, each.code) for each in answers}
        if statuses != {(200, None)}:
            self.caller.ledger.problem(f"SendMessage: {sorted(statuses, key=str)}", f"{answers}")
            return
        if any(each.body != answers[0].body for each in answers):
            self.caller.ledger.problem("one key, two replies", f"{answers}")
        book.sent.append((word, began, time.monotonic()))
        message = answers[0].body["message"]
        book.answers[answers[0].body["turn"]["turnId"]] = message["text"]
        self.caller.ledger.done["turns sent"] += 1

    # --- creation and deletion ---

    async def _churn(self, book: Book) -> None:
        """Delete the conversation: empty, with a message, or amid a turn."""
        what, turn = self.source.randrange(3), None
        if what == 1:
            await self._appends(book, 1, keyed=True)
        elif what == 2:
            turn = self._begin(book, may_be_cancelled=True, may_be_gone=True)
            await turn.begun()
        self.unknown.add(book.conversation)
        self.kept.discard(book.conversation)
        try:
            await self._delete(book.conversation)
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
                raise GaveUp(kind)
        self.unknown.discard(conversation)
        self.deleted.add(conversation)
        self.caller.ledger.done["deletions"] += 1
        found = await self.caller.until_known("GetConversation", None, conversationId=conversation)
        if found.status != 404:
            self.caller.ledger.problem("a deleted conversation is there", f"{conversation} {found}")

    async def _end_of_deleted(self, turn: SoakTurn) -> None:
        try:
            await turn.end()
        except GaveUp:
            return
