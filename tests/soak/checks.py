"""Checks after the faults: every acknowledged message is stored once and in order, and every turn has ended."""

import asyncio
import contextlib
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, Final

import asyncpg

from tests.soak.ledger import Abandoned, Ledger
from tests.soak.load import OwnedConversation, User
from tests.soak.turns import check_model_calls
from tests.support.checkers import check_append_log, check_seqs, check_set, check_statuses
from tests.support.history import History, Operation
from tests.support.model_server.journal import prompts
from tests.support.platform import Platform
from tests.support.retries import RECOVERY_SECONDS
from tests.support.sse import TERMINAL
from tests.support.wait import wait_until

AT_ONCE: Final = 8
BAD_STREAMS: Final = """
    SELECT * FROM (
        SELECT s.id, s.closed_at, s.last_seq, count(e.seq) AS events,
            count(e.seq) FILTER (WHERE e.type = ANY($1)) AS ends,
            max(e.seq) FILTER (WHERE e.type = ANY($1)) AS last
        FROM events.streams s LEFT JOIN events.events e ON e.stream_id = s.id GROUP BY s.id
    ) AS found
    WHERE closed_at IS NULL OR events <> last_seq OR ends <> 1 OR last <> last_seq
"""
OPEN: Final = "SELECT count(*) FROM events.streams WHERE closed_at IS NULL"


async def check_invariants(
    platform: Platform, users: list[User], ledger: Ledger, history: History, journal: Path
) -> None:
    """Record every violation."""
    await _check_streams(platform, ledger)
    calls = Counter(row["prompt"] for row in await asyncio.to_thread(prompts, journal))
    limit = asyncio.Semaphore(AT_ONCE)
    operations = _by_key(history, "append")

    async def one(user: User, owned: OwnedConversation) -> None:
        async with limit:
            try:
                await _check_conversation(user, owned, calls, operations[owned.conversation])
            except Abandoned:
                return

    await asyncio.gather(*(one(user, owned) for user in users for owned in user.conversations))
    for user in users:
        await _check_list(user)
    for turn, reads in _by_key(history, "status").items():
        for each in check_statuses(reads):
            ledger.problem("a status that is wrong", f"{turn}: {each}")
        ledger.done["statuses read"] += sum(each.end is not None for each in reads)


def _by_key(history: History, name: str) -> defaultdict[str, list[Operation]]:
    found: defaultdict[str, list[Operation]] = defaultdict(list)
    for each in history.operations(name):
        found[each.key].append(each)
    return found


async def _check_streams(platform: Platform, ledger: Ledger) -> None:
    """Every stream is closed, without gaps, and has one terminal event, its last."""
    connection = await asyncpg.connect(platform.stack.database_url())
    try:

        async def all_closed() -> bool:
            return not await connection.fetchval(OPEN)

        with contextlib.suppress(AssertionError):  # open streams are recorded below
            await wait_until(all_closed, RECOVERY_SECONDS, every=0.5)
        for row in await connection.fetch(BAD_STREAMS, [*TERMINAL]):
            kind = "a stream that is open" if row["closed_at"] is None else "a stream that is wrong"
            ledger.problem(kind, str(dict(row)))
    finally:
        await connection.close()


async def _check_conversation(
    user: User, owned: OwnedConversation, calls: Counter[str], operations: list[Operation]
) -> None:
    for turn in owned.turns:
        turn.check_model_calls(calls[turn.word])
        if owned.conversation in user.kept:
            await user.read_status(turn)  # the terminal status is never left
    for word, began, ended in owned.sent:
        check_model_calls(user.caller.ledger, word, calls[word], began, ended)
    if owned.conversation not in user.kept:
        return
    rows = await user.caller.pages("ListMessages", "messages", conversationId=owned.conversation)
    found = check_seqs([int(row["seq"]) for row in rows])
    found += check_append_log([row["text"] for row in rows if row["role"] == "USER"], operations)
    found += _answer_problems(owned, rows, operations)
    conversation = await user.caller.must("GetConversation", conversationId=owned.conversation)
    if int(conversation["messageCount"]) != len(rows):
        found.append(f"{conversation['messageCount']} messages said, {len(rows)} listed")
    if conversation.get("activeTurnId"):
        found.append(f"{conversation['activeTurnId']} is active")
    for each in found:
        user.caller.ledger.problem("a conversation that is wrong", f"{owned.conversation}: {each}")
    user.caller.ledger.done["messages read"] += len(rows)


def _answer_problems(
    owned: OwnedConversation, rows: list[dict[str, Any]], operations: list[Operation]
) -> list[str]:
    answers = [row for row in rows if row["role"] == "ASSISTANT"]
    counts = Counter(row["turnId"] for row in answers)
    shown = {turn.ref["turnId"]: turn.fold.text for turn in owned.turns} | owned.answers
    found = [f"{turn}: {count} answers" for turn, count in counts.items() if count > 1]
    by_turn = {row["turnId"]: row["text"] for row in answers}
    for turn, text in shown.items():
        committed = by_turn.get(turn, "")
        if committed != text:
            found.append(f"{turn}: committed {committed[:200]!r}, shown {text[:200]!r}")
    if all(each.end is not None for each in operations):
        found += [f"{turn}: an answer to no message" for turn in counts.keys() - shown.keys()]
    return found


async def _check_list(user: User) -> None:
    """The list has the conversations that were created and not deleted."""
    try:
        rows = await user.caller.pages("ListConversations", "conversations")
    except Abandoned:
        return
    ids = [row["conversationId"] for row in rows]
    possible = user.kept | user.unknown
    creations = [
        Operation(user.caller.user, "create", each, each, 0, 1 if each in user.kept else None)
        for each in possible
    ]
    for each in check_set(ids, creations):
        user.caller.ledger.problem("a list that is wrong", f"{user.caller.user}: {each}")
