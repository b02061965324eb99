"""Sharing by user, organization and link; what each role permits; and revocation."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from services.contracts.auth.audit import AUDIT_SERVICE
from services.contracts.auth.authorization import AUTHORIZATION_SERVICE
from tests.e2e.actions import ask, messages, missing, user_of
from tests.requirements import requirement
from tests.support.platform import Answer, Client, Platform
from tests.support.wait import wait_until

READS = ("GetConversation", "ListMessages")
WRITES: dict[str, dict[str, Any]] = {
    "UpdateConversation": {"title": "changed"},
    "AppendMessage": {"text": "added"},
    "SendMessage": {"text": "asked"},
}


async def sharing(client: Client, method: str, **body: Any) -> Answer:
    return await client.call_of(AUTHORIZATION_SERVICE, method, **body)


async def shared(client: Client, method: str, conversation: str, **body: Any) -> Any:
    """Call a sharing method on a conversation, which must succeed."""
    return await client.must_of(
        AUTHORIZATION_SERVICE, method, object=f"conversation:{conversation}", **body
    )


async def shared_with(client: Client) -> list[str]:
    found = await client.must_of(AUTHORIZATION_SERVICE, "ListSharedWithMe")
    return found["objects"]


async def codes(client: Client, conversation: str) -> dict[str, str | None]:
    """The error code of each kind of call; None if it succeeds."""
    found: dict[str, str | None] = {}
    for method in READS:
        found[method] = (await client.call(method, conversationId=conversation)).code
    for method, body in WRITES.items():
        found[method] = (await client.call(method, conversationId=conversation, **body)).code
    for method in ("ListShares", "CreateShareLink"):
        answer = await sharing(client, method, object=f"conversation:{conversation}")
        found[method] = answer.code
    return found


def role_codes(*, read: str | None, write: str | None, own: str | None) -> dict[str, str | None]:
    return {
        **dict.fromkeys(READS, read),
        **dict.fromkeys(WRITES, write),
        "ListShares": own,
        "CreateShareLink": own,
    }


NOBODY = role_codes(read="NOT_FOUND", write="NOT_FOUND", own="NOT_FOUND")
VIEWER = role_codes(read=None, write="PERMISSION_DENIED", own="PERMISSION_DENIED")
EDITOR = role_codes(read=None, write=None, own="PERMISSION_DENIED")


@requirement("access:sharing")
async def test_a_shared_role_permits_only_its_operations_until_it_is_revoked(
    alice: Client, bob: Client
) -> None:
    conversation = await alice.conversation(title="ours")
    target, subject = f"conversation:{conversation}", f"user:{user_of(bob)}"
    assert await codes(bob, conversation) == NOBODY
    for role, expected in (("VIEWER", VIEWER), ("EDITOR", EDITOR), ("VIEWER", VIEWER)):
        given = await shared(alice, "Share", conversation, subject=subject, role=role)
        assert given == {"subject": subject, "role": role}
        assert await codes(bob, conversation) == expected
        assert (await shared(alice, "ListShares", conversation))["shares"] == [given]
        assert await shared_with(bob) == [target]
        deleted = await bob.call("DeleteConversation", conversationId=conversation)
        assert deleted.code == "PERMISSION_DENIED"
    assert await shared_with(alice) == []
    await shared(alice, "Unshare", conversation, subject=subject)
    assert await codes(bob, conversation) == NOBODY
    assert await shared_with(bob) == []
    assert (await alice.call("GetConversation", conversationId=conversation)).status == 200


@requirement("access:sharing")
async def test_a_role_shared_with_an_organization_applies_to_its_members_only(
    own_platform: Platform, alice: Client, bob: Client, conversation: str
) -> None:
    organization = f"org-{uuid.uuid4().hex[:12]}"
    subject = f"organization:{organization}#member"
    await shared(alice, "Share", conversation, subject=subject, role="EDITOR")
    assert await codes(bob, conversation) == NOBODY
    await own_platform.write_tuples(
        (f"user:{user_of(bob)}", "member", f"organization:{organization}")
    )
    assert await codes(bob, conversation) == EDITOR
    assert await shared_with(bob) == [f"conversation:{conversation}"]
    await shared(alice, "Unshare", conversation, subject=subject)
    assert await codes(bob, conversation) == NOBODY


@requirement("access:share-links")
@pytest.mark.parametrize(("role", "expected"), [("VIEWER", VIEWER), ("EDITOR", EDITOR)])
async def test_a_link_grants_its_role_to_users_who_open_it_until_it_is_revoked(
    alice: Client, bob: Client, conversation: str, role: str, expected: dict[str, str | None]
) -> None:
    link = await shared(alice, "CreateShareLink", conversation, role=role)
    assert await codes(bob, conversation) == NOBODY
    opened = await sharing(bob, "OpenShareLink", token=link["token"])
    assert opened.body == {"object": f"conversation:{conversation}", "role": role}
    assert await codes(bob, conversation) == expected
    assert await shared_with(bob) == [f"conversation:{conversation}"]
    listed = await shared(alice, "ListShares", conversation)
    assert listed["shares"] == []
    assert listed["links"] == [{name: link[name] for name in link if name != "token"}]
    await shared(alice, "RevokeShareLink", conversation, linkId=link["linkId"])
    assert await codes(bob, conversation) == NOBODY
    assert (await shared(alice, "ListShares", conversation))["links"] == []


@requirement("access:share-links")
async def test_an_ended_link_answers_as_an_unknown_one(
    alice: Client, bob: Client, conversation: str, database: asyncpg.Connection
) -> None:
    revoked = await shared(alice, "CreateShareLink", conversation)
    await shared(alice, "RevokeShareLink", conversation, linkId=revoked["linkId"])
    ends = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    expiring = await shared(alice, "CreateShareLink", conversation, expiresAt=ends)

    over = "UPDATE auth.share_links SET expires_at = now() WHERE link_id = $1"
    assert await database.execute(over, expiring["linkId"]) == "UPDATE 1"

    async def expired() -> bool:
        return (await shared(alice, "ListShares", conversation))["links"] == []

    await wait_until(expired, 10, "the link to expire")
    of_deleted = await alice.conversation()
    gone = await shared(alice, "CreateShareLink", of_deleted)
    await alice.must("DeleteConversation", conversationId=of_deleted)

    async def deleted() -> bool:
        return (await sharing(bob, "OpenShareLink", token=gone["token"])).status == 404

    await wait_until(deleted, 20, "the link to be deleted with its conversation")
    unknown = await sharing(bob, "OpenShareLink", token=f"yl_{uuid.uuid4().hex}")
    assert unknown.code == "NOT_FOUND"
    for each in (revoked, expiring, gone):
        answer = await sharing(bob, "OpenShareLink", token=each["token"])
        assert (answer.status, answer.body) == (unknown.status, unknown.body)
    assert await codes(bob, conversation) == NOBODY
    again = await sharing(
        alice,
        "RevokeShareLink",
        object=f"conversation:{conversation}",
        linkId=missing("link"),
    )
    assert again.code == "NOT_FOUND"


async def deleted_and_shared(own_platform: Platform) -> dict[str, str | None]:
    """Delete a conversation that bob wrote in, and wait until his share is gone; the code of each call on it."""
    async with (
        own_platform.client(f"alice-{uuid.uuid4().hex[:8]}") as alice,
        own_platform.client(f"bob-{uuid.uuid4().hex[:8]}") as bob,
    ):
        conversation = await alice.conversation()
        await shared(alice, "Share", conversation, subject=f"user:{user_of(bob)}", role="EDITOR")
        await ask(bob, conversation, "said by bob")
        assert len(await messages(alice, conversation)) == 2
        await alice.must("DeleteConversation", conversationId=conversation)
        found = {
            who: (await client.call("GetConversation", conversationId=conversation)).code
            for who, client in (("alice", alice), ("bob", bob))
        }

        async def is_gone() -> str | None:
            if await shared_with(bob):
                return None
            return (await sharing(alice, "ListShares", object=f"conversation:{conversation}")).code

        return {**found, "shares": await wait_until(is_gone, 20, "the tuples to be deleted")}


@requirement("access:sharing", "access:object-deletion")
@pytest.mark.waits(begin=deleted_and_shared)
async def test_a_deleted_conversation_is_not_found_for_users_it_was_shared_with(
    waited: dict[str, str | None],
) -> None:
    assert waited == dict.fromkeys(("alice", "bob", "shares"), "NOT_FOUND")


@requirement("access:sharing")
async def test_ownership_can_be_neither_shared_nor_removed(
    alice: Client, bob: Client, conversation: str
) -> None:
    target, me = f"conversation:{conversation}", f"user:{user_of(alice)}"
    assert (await sharing(alice, "Share", object=target, subject=me)).code == "INVALID_ARGUMENT"
    await shared(alice, "Unshare", conversation, subject=me)
    assert (await alice.call("GetConversation", conversationId=conversation)).status == 200
    refused = await sharing(bob, "Share", object=target, subject=f"user:{user_of(bob)}")
    assert refused.code == "NOT_FOUND"


@requirement("access:sharing", "access:audit:own")
async def test_the_owners_audit_log_records_shares_and_denials(
    alice: Client, bob: Client, conversation: str
) -> None:
    target, subject = f"conversation:{conversation}", f"user:{user_of(bob)}"
    await bob.call("GetConversation", conversationId=conversation)
    await shared(alice, "Share", conversation, subject=subject)
    link = await shared(alice, "CreateShareLink", conversation)
    await sharing(bob, "OpenShareLink", token=link["token"])
    await shared(alice, "RevokeShareLink", conversation, linkId=link["linkId"])
    await shared(alice, "Unshare", conversation, subject=subject)

    async def logged() -> Any:
        page = await alice.must_of(AUDIT_SERVICE, "ListAuditEvents")
        found = [each for each in page["events"] if each.get("object") == target]
        return found if {each["action"] for each in found} >= {"ACCESS_DENIED"} else []

    found = await wait_until(logged, 10, "the denial to be recorded")
    changes = [each for each in found if each["action"] == "SHARING_CHANGED"]
    assert [each["details"]["change"] for each in changes] == [
        "unshared",
        "link revoked",
        "link opened",
        "link created",
        "shared",
    ]
    assert link["token"] not in str(found)
    assert {each["owner"] for each in found} == {f"user:{user_of(alice)}"}
    his = await bob.must_of(AUDIT_SERVICE, "ListAuditEvents")
    assert conversation not in str(his)
