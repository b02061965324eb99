"""Events that the platform publishes: of turns, conversations and access."""

import json
from typing import Any

import pytest
from valkey.asyncio import Valkey

from services.contracts.auth.audit import AUDIT_SERVICE
from services.contracts.auth.authorization import AUTHORIZATION_SERVICE
from services.contracts.auth.topics import ACCESS_CHANGED
from services.contracts.llm.topics import CONVERSATION_DELETED, TURN_COMPLETED
from services.kit.topics import AnyTopic
from tests.e2e.actions import ask, user_of
from tests.requirements import requirement
from tests.support.platform import Client, Platform
from tests.support.wait import wait_until


async def event_of(platform: Platform, topic: AnyTopic, text: str) -> dict[str, Any]:
    """Wait for the topic's only event that contains a text."""
    valkey = Valkey.from_url(platform.stack.environment.valkey_url)

    async def published() -> list[dict[str, Any]]:
        messages = [fields[b"data"] for _, fields in await valkey.xrange(topic.name)]
        return [json.loads(each) for each in messages if text.encode() in each]

    what = f"an event of {topic.name} with {text}"
    try:
        found: list[dict[str, Any]] = await wait_until(published, 20, what)
    finally:
        await valkey.aclose()
    assert len(found) == 1
    return found[0]


@requirement("events:turn-completed")
async def test_a_completed_turn_is_published_without_its_texts(
    own_platform: Platform, alice: Client, conversation: str
) -> None:
    await ask(alice, conversation, "an unlogged question")
    event = await event_of(own_platform, TURN_COMPLETED, conversation)
    assert (event["type"], event["source"]) == (TURN_COMPLETED.name, "/yocaso/llm")
    data = event["data"]
    assert data["userId"] == user_of(alice)
    assert (data["status"], data["userMessageSeq"], data["assistantMessageSeq"]) == (
        "COMPLETED",
        "1",
        "2",
    )
    assert data["usage"]["totalTokens"] > 0
    assert "unlogged" not in json.dumps(event)


@requirement("events:conversation-deleted")
@pytest.mark.parametrize("times", [1, 3])
async def test_a_deletion_is_published_and_recorded_once(
    own_platform: Platform, alice: Client, conversation: str, times: int
) -> None:
    for _ in range(times):
        await alice.must("DeleteConversation", conversationId=conversation)
    event = await event_of(own_platform, CONVERSATION_DELETED, conversation)
    assert event["data"]["userId"] == user_of(alice)

    async def recorded() -> list[Any]:
        log = await alice.must_of(AUDIT_SERVICE, "ListAuditEvents", action="CONVERSATION_DELETED")
        return log["events"]

    [entry] = await wait_until(recorded, 20, "the deletion in the audit log")
    assert (entry["actor"], entry["object"]) == (user_of(alice), f"conversation:{conversation}")


@requirement("events:access-changed")
async def test_removed_access_is_published_with_its_position(
    own_platform: Platform, alice: Client, bob: Client, conversation: str
) -> None:
    share = {"object": f"conversation:{conversation}", "subject": f"user:{user_of(bob)}"}
    await alice.must_of(AUTHORIZATION_SERVICE, "Share", **share, role="VIEWER")
    await alice.must_of(AUTHORIZATION_SERVICE, "Unshare", **share)
    event = await event_of(own_platform, ACCESS_CHANGED, conversation)
    assert int(event["data"]["position"]) > 0
    change = {"userId": user_of(bob), "object": f"conversation:{conversation}"}
    assert change in event["data"]["changes"]
