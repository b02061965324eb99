"""A deletion that a kill interrupts amid its batches completes."""

import asyncio

import asyncpg

from tests.chaos.faults import kill, until_ready
from tests.requirements import requirement
from tests.support.failpoint_control import FailpointControl
from tests.support.platform import Client, Platform
from tests.support.retries import until_ok
from tests.support.wait import wait_until

MESSAGES = 120
"""More than the purge deletes in one batch."""


@requirement("chaos:W2", "conversations:delete")
async def test_an_interrupted_deletion_completes(
    platform: Platform, alice: Client, failpoints: FailpointControl
) -> None:
    kept, gone = await alice.conversation(), await alice.conversation()
    for _ in range(MESSAGES // 10):
        texts = [{"conversationId": gone, "text": f"message {number}"} for number in range(10)]
        await asyncio.gather(*(alice.must("AppendMessage", **each) for each in texts))
    database = await asyncpg.connect(platform.stack.database_url())
    try:

        async def left() -> int:
            pattern = f"%ConversationActor/{gone}/message%"
            return await database.fetchval(
                "SELECT count(*) FROM dapr.state WHERE key LIKE $1", pattern
            )

        assert await left() >= MESSAGES
        failpoints.arm("conversation.after_rows:1:stop")
        await alice.must("DeleteConversation", conversationId=gone)
        hit = await failpoints.wait_for("conversation.after_rows", 30)
        assert 0 < await left() < MESSAGES
        assert hit.is_standing
        await kill(platform, "llm")
        await until_ready(platform, "llm")

        async def all_gone() -> bool:
            return await left() == 0

        await wait_until(all_gone, 60, "all messages to be purged")

        async def entered() -> int:
            return await database.fetchval(
                "SELECT count(*) FROM dapr.state WHERE key LIKE $1",
                f"%ConversationManagerActor/%position/{gone}",
            )

        async def unlisted() -> bool:
            return await entered() == 0

        await wait_until(unlisted, 60, "its index entry to be removed")
    finally:
        await database.close()
    page = await until_ok(alice, "ListConversations")
    assert [each["conversationId"] for each in page["conversations"]] == [kept]
    answer = await alice.call("AppendMessage", conversationId=gone, text="still there?")
    assert answer.code == "NOT_FOUND"
