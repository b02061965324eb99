"""After the faults: is every acknowledged word there once, in order, and has every turn ended?"""

import asyncio
import contextlib
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, Final

import asyncpg

from tests.soak.ledger import HEAL_SECONDS, GaveUp, Ledger
from tests.soak.load import Book, User
from tests.soak.turns import check_model_calls
from tests.support.checkers import check_append_log, check_seqs, check_set
from tests.support.history import History, Operation
from tests.support.model_server.journal import prompts
from tests.support.platform import Platform
from tests.support.wait import wait_until

AT_ONCE: Final = 8
BAD_STREAMS: Final = """
    SELECT s.id, s.closed_at, s.last_seq, count(e.seq) AS events,
        count(e.seq) FILTER (WHERE e.type IN ('run.completed', 'run.failed', 'run.cancelled')) AS ends,
        max(e.seq) FILTER (WHERE e.type IN ('run.completed', 'run.failed', 'run.cancelled')) AS last
    FROM events.streams s LEFT JOIN events.events e ON e.stream_id = s.id
    GROUP BY s.id HAVING s.closed_at IS NULL OR count(e.seq) <> s.last_seq
        OR count(e.seq) FILTER (WHERE e.type IN ('run.completed', 'run.failed', 'run.cancelled')) <> 1
        OR max(e.seq) FILTER (WHERE e.type IN ('run.completed', 'run.failed', 'run.cancelled')) <> s.last_seq
"""
OPEN: Final = "SELECT count(*) FROM events.streams WHERE closed_at IS NULL"


async def judge(
    platform: Platform, users: list[User], ledger: Ledger, history: History, journal: Path
) -> None:
    """Note everything that breaks a promise."""
    await _judge_streams(platform, ledger)
    calls = Counter(row["prompt"] for row in await asyncio.to_thread(prompts, journal))
    limit = asyncio.Semaphore(AT_ONCE)
    operations: defaultdict[str, list[Operation]] = defaultdict(list)
    for each in history.operations("append"):
        operations[each.key].append(each)

    async def one(user: User, book: Book) -> None:
        async with limit:
            try:
                await _judge_book(user, book, calls, operations[book.conversation])
            except GaveUp:
                return

    await asyncio.gather(*(one(user, book) for user in users for book in user.books))
    for user in users:
        await _judge_list(user)


async def _judge_streams(platform: Platform, ledger: Ledger) -> None:
    """Every stream is closed, gap-free, and has one terminal event, its last."""
    connection = await asyncpg.connect(platform.stack.database_url())
    try:

        async def all_closed() -> bool:
            return not await connection.fetchval(OPEN)

        with contextlib.suppress(AssertionError):  # those that are open are noted one by one
            await wait_until(all_closed, HEAL_SECONDS, every=0.5)
        for row in await connection.fetch(BAD_STREAMS):
            kind = "a stream that is open" if row["closed_at"] is None else "a stream that is wrong"
            ledger.problem(kind, str(dict(row)))
    finally:
        await connection.close()


async def _judge_book(
    user: User, book: Book, calls: Counter[str], operations: list[Operation]
) -> None:
    for turn in book.turns:
        turn.check_model_calls(calls[turn.word])
    for word, began, ended in book.sent:
        check_model_calls(user.caller.ledger, word, calls[word], began, ended)
    if book.conversation not in user.kept:
        return
    rows = await user.caller.pages("ListMessages", "messages", conversationId=book.conversation)
    found = check_seqs([int(row["seq"]) for row in rows])
    found += check_append_log([row["text"] for row in rows if row["role"] == "USER"], operations)
    found += _judge_answers(book, rows, operations)
    conversation = await user.caller.must("GetConversation", conversationId=book.conversation)
    if int(conversation["messageCount"]) != len(rows):
        found.append(f"{conversation['messageCount']} messages said, {len(rows)} listed")
    if conversation.get("activeTurnId"):
        found.append(f"{conversation['activeTurnId']} is active")
    for each in found:
        user.caller.ledger.problem("a conversation that is wrong", f"{book.conversation}: {each}")
    user.caller.ledger.done["messages read"] += len(rows)


def _judge_answers(
    book: Book, rows: list[dict[str, Any]], operations: list[Operation]
) -> list[str]:
    answers = [row for row in rows if row["role"] == "ASSISTANT"]
    counts = Counter(row["turnId"] for row in answers)
    shown = {turn.ref["turnId"]: turn.fold.text for turn in book.turns} | book.answers
    found = [f"{turn}: {count} answers" for turn, count in counts.items() if count > 1]
    by_turn = {row["turnId"]: row["text"] for row in answers}
    for turn, text in shown.items():
        committed = by_turn.get(turn, "")
        if committed != text:
            found.append(f"{turn}: committed {committed[:200]!r}, shown {text[:200]!r}")
    if all(each.outcome == "ok" for each in operations):
        found += [f"{turn}: answers nobody" for turn in counts.keys() - shown.keys()]
    return found


async def _judge_list(user: User) -> None:
    """The list holds what was created and not deleted."""
    try:
        rows = await user.caller.pages("ListConversations", "conversations")
    except GaveUp:
        return
    ids = [row["conversationId"] for row in rows]
    possible = user.kept | user.unknown
    report = check_set(
        ids,
        [
            Operation(user.caller.user, "create", each, each, "ok", 0, 1)
            if each in user.kept
            else Operation(user.caller.user, "create", each, each, "info", 0, None)
            for each in possible
        ],
    )
    for each in report.problems:
        user.caller.ledger.problem("a list that is wrong", f"{user.caller.user}: {each}")
