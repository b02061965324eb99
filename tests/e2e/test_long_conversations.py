"""A conversation of 10,000 messages: pages, turns, appends and deletion cost what they do in a short one."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from services.contracts.llm.conversations import Role
from services.kit.clock import utc_now
from services.kit.dapr.state import DurableState
from services.kit.dapr.state_postgres import PostgresStateStore
from services.kit.storage.db import Database
from services.llm.actors import ConversationActor
from services.llm.actors.conversation import PAGE_BYTES
from services.llm.actors.purge import message_row
from services.llm.domain import CONTEXT_CHARS, CONTEXT_MESSAGES, ConversationState
from tests.e2e.actions import mark
from tests.requirements import requirement
from tests.support.platform import Client, Platform, idempotency_key
from tests.support.residual_data import residual_rows
from tests.support.wait import wait_until

SHORT, LONG = 100, 10_000
PER_COMMIT = 500
AT_ONCE = 32
PAGE = 100
PURGE_SECONDS = 60
ROWS = "SELECT key, xmin::text, octet_length(key) + octet_length(value) FROM dapr.state WHERE key LIKE $1"
Grow = Callable[[str, int], Awaitable[None]]


def entry(number: int) -> str:
    return f"entry {number:05d} " + "of a long conversation " * 8


@pytest.fixture(params=["stored", pytest.param("appended", marks=pytest.mark.long)])
async def grow(
    request: pytest.FixtureRequest, own_platform: Platform, alice: Client
) -> AsyncIterator[Grow]:
    """Adds entries up to a number: as rows of the store, or by calls through the edge."""
    database = Database(own_platform.stack.database_url())
    store = PostgresStateStore(database, "llm")

    async def by_rows(conversation: str, until: int) -> None:
        prefix = ConversationActor._prefix(conversation)
        state = DurableState(store, prefix, ConversationState)
        head = await state.load()
        assert head is not None
        while head.last_seq < until:
            count = min(PER_COMMIT, until - head.last_seq)
            numbers = range(head.last_seq + 1, head.last_seq + count + 1)
            messages = [
                head.append(Role.USER, entry(each), f"msg_{each:032d}", utc_now())
                for each in numbers
            ]
            await state.commit(head, add={message_row(each.seq): each for each in messages})

    async def by_calls(conversation: str, until: int) -> None:
        found = await alice.must("GetConversation", conversationId=conversation)
        left = iter(range(int(found["messageCount"]) + 1, until + 1))

        async def append() -> None:
            for number in left:
                body = {"conversationId": conversation, "text": entry(number)}
                await alice.must("AppendMessage", idempotency_key(), **body)

        await asyncio.gather(*(append() for _ in range(AT_ONCE)))

    yield by_rows if request.param == "stored" else by_calls
    await database.close()


async def pages(client: Client, conversation: str, order: str) -> list[list[dict[str, Any]]]:
    """Every page of a conversation, each checked for its bounds."""
    found: list[list[dict[str, Any]]] = []
    cursor: dict[str, str] = {}
    while True:
        body = {"conversationId": conversation, "order": order, "limit": PAGE, **cursor}
        page = await client.must("ListMessages", **body)
        assert 0 < len(page["messages"]) <= PAGE
        assert sum(len(each["text"]) for each in page["messages"]) <= PAGE_BYTES
        found.append(page["messages"])
        if "nextCursor" not in page:
            return found
        cursor = {"cursor": page["nextCursor"]}


class Written:
    """The bytes of a conversation's rows that a call writes, however often it is repeated inside."""

    def __init__(self, database: asyncpg.Connection, conversation: str) -> None:
        self._database = database
        self._rows = f"%{conversation}%"

    async def by(self, call: Awaitable[Any]) -> int:
        before = await self._versions()
        await call
        after = await self._versions()
        return sum(
            size for key, (version, size) in after.items() if before.get(key) != (version, size)
        )

    async def _versions(self) -> dict[str, tuple[str, int]]:
        rows = await self._database.fetch(ROWS, self._rows)
        return {row[0]: (row[1], row[2]) for row in rows}


@requirement("conversations:long")
@pytest.mark.timeout(300)
async def test_a_conversation_of_10000_messages_costs_what_a_short_one_does(
    own_platform: Platform, alice: Client, database: asyncpg.Connection, grow: Grow
) -> None:
    conversation = await alice.conversation(title="long")
    written, costs = Written(database, conversation), list[dict[str, int]]()
    word = mark()
    for size in (SHORT, LONG):
        await grow(conversation, size)
        await refreshed(alice, conversation, size)
        costs.append(
            {
                "append": await written.by(append(alice, conversation, size)),
                "turn": await written.by(ask(alice, conversation, f"{word} {size:05d}")),
            }
        )
    short, long = costs
    assert all(long[each] <= 1.1 * short[each] for each in short), costs
    await check_context(own_platform, word)
    await check_pages(alice, conversation)
    await check_deletion(own_platform, alice, conversation)


async def refreshed(client: Client, conversation: str, size: int) -> None:
    """Change the title: its actor sees that others wrote, and reads its state again."""
    found = await client.must("UpdateConversation", conversationId=conversation, title="long")
    assert int(found["messageCount"]) >= size


async def append(client: Client, conversation: str, size: int) -> None:
    body = {"conversationId": conversation, "text": entry(size)}
    await client.must("AppendMessage", idempotency_key(), **body)


async def ask(client: Client, conversation: str, text: str) -> None:
    sent = await client.must("SendMessage", conversationId=conversation, text=text)
    assert sent["message"]["text"] == f"You said: {text}"


async def check_context(platform: Platform, word: str) -> None:
    """The model got the newest messages only, as many in the long conversation as in the short one."""
    short, long = [call["messages"] for call in await platform.model_calls(word)]
    assert len(short) == len(long) == CONTEXT_MESSAGES
    assert sum(len(each["content"]) for each in long) <= CONTEXT_CHARS


async def check_pages(client: Client, conversation: str) -> None:
    """Both orders show every message once, in pages that are full but for the last."""
    forth = await pages(client, conversation, "ASCENDING")
    back = await pages(client, conversation, "DESCENDING")
    seqs = [int(each["seq"]) for page in forth for each in page]
    assert seqs == list(range(1, len(seqs) + 1))
    assert len(seqs) >= LONG + 3
    assert [each for page in back for each in page] == [
        each for page in reversed(forth) for each in reversed(page)
    ]
    for each in (forth, back):
        assert {len(page) for page in each[:-1]} == {PAGE}


async def check_deletion(platform: Platform, client: Client, conversation: str) -> None:
    """Every row, event, tuple and job of it goes."""
    await client.must("DeleteConversation", conversationId=conversation)

    async def is_gone() -> bool:
        return not await residual_rows(platform, [conversation])

    await wait_until(is_gone, PURGE_SECONDS, "every row of the conversation to go", every=0.5)
