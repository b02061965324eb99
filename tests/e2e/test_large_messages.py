"""A conversation whose messages exceed the size of one gRPC message."""

import asyncpg
import pytest

from tests.bench.figures import closed_loop
from tests.e2e.actions import ask, deactivate
from tests.e2e.test_conversations import all_pages
from tests.requirements import requirement
from tests.support.platform import Client, Platform
from tests.support.wait import wait_until

MESSAGES = 120
TEXT = "\u0001" * 1024 + "🙂" * 1024  # in JSON six bytes for one character, four for the other
LARGE = TEXT + "x" * (65_536 - len(TEXT.encode()))


@requirement("conversations:messages", "conversations:delete", "kit:large-reads")
@pytest.mark.timeout(240)
async def test_a_conversation_of_many_large_messages_is_listed_continued_and_removed(
    own_platform: Platform, alice: Client, conversation: str, database: asyncpg.Connection
) -> None:
    async def append(_: int) -> None:
        await alice.must("AppendMessage", conversationId=conversation, text=LARGE)

    await closed_loop(append, MESSAGES, 4)
    pages = await all_pages(
        alice, "ListMessages", "messages", conversationId=conversation, limit=100
    )
    listed = [message for page in pages for message in page]
    assert len(listed) == MESSAGES
    assert all(message["text"] == LARGE for message in listed)

    # The reactivated actor reads all its rows.
    await deactivate(own_platform, "ConversationActor", conversation)
    await ask(alice, conversation, "and now?")

    await alice.must("DeleteConversation", conversationId=conversation)

    async def rows() -> int:
        like = f"%ConversationActor/{conversation}/message%"
        return len(await database.fetch("SELECT 1 FROM dapr.state WHERE key LIKE $1", like))

    async def removed() -> bool:
        return await rows() == 0

    await wait_until(removed, 60, "the messages to be removed")
