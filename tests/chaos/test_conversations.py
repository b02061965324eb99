"""Creations and deletions span two actors; one interrupted by a kill is reconciled."""

from pathlib import Path

import asyncpg
import pytest

from tests.chaos.faults import kill, kill_at, restart, until_ready, until_writable
from tests.requirements import requirement
from tests.support.failpoint_control import FailpointControl
from tests.support.platform import Client, Platform, idempotency_key
from tests.support.retries import until_ok
from tests.support.wait import wait_until

MESSAGES = 120
"""More than the purge deletes in one batch."""


async def _listed(client: Client) -> list[str]:
    page = await until_ok(client, "ListConversations")
    return [each["conversationId"] for each in page["conversations"]]


@requirement("chaos:T3", "conversations:create")
@pytest.mark.parametrize("target", ["llm", "llm-daprd"])
async def test_an_interrupted_creation_is_reconciled(
    platform: Platform, alice: Client, probe_conversation: str, socket: Path, target: str
) -> None:
    key = idempotency_key()
    async with FailpointControl(socket) as control:
        await restart(platform, "llm", control.environment("conversation.after_index:1:stop"))
        await until_writable(platform, probe_conversation)
        call = alice.call("CreateConversation", key, title="half")
        await kill_at(platform, control, "conversation.after_index", call, target)
    # The call is not repeated: the reminder reconciles the creation.
    found = await wait_until(
        lambda: _listed(alice), 60, "the interrupted conversation to be listed"
    )
    made = await until_ok(alice, "CreateConversation", key, title="half")
    assert found == [made["conversationId"]]
    sent = await until_ok(alice, "SendMessage", conversationId=found[0], text="complete?")
    assert sent["turn"]["status"] == "COMPLETED"
    assert await _listed(alice) == found


@requirement("chaos:W2", "conversations:delete")
async def test_an_interrupted_deletion_completes(platform: Platform, alice: Client) -> None:
    kept, gone = await alice.conversation(), await alice.conversation()
    for number in range(MESSAGES):
        await alice.must("AppendMessage", conversationId=gone, text=f"message {number}")
    database = await asyncpg.connect(platform.stack.database_url())
    try:

        async def left() -> int:
            pattern = f"%ConversationActor/{gone}/message%"
            return await database.fetchval(
                "SELECT count(*) FROM dapr.state WHERE key LIKE $1", pattern
            )

        assert await left() >= MESSAGES
        await alice.must("DeleteConversation", conversationId=gone)

        async def half() -> bool:
            return 0 < await left() < MESSAGES

        await wait_until(half, 30, "half of the messages to be purged")
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
    assert await _listed(alice) == [kept]
    answer = await alice.call("AppendMessage", conversationId=gone, text="still there?")
    assert answer.code == "NOT_FOUND"
