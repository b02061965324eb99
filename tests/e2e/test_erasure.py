"""DeleteAccount removes all that the platform has of a user, and says so on a receipt."""

import json
from typing import Any

import asyncpg

from services.contracts.auth.accounts import ACCOUNT_SERVICE
from services.contracts.auth.audit import AUDIT_SERVICE
from services.contracts.auth.authorization import AUTHORIZATION_SERVICE
from services.contracts.auth.keys import API_KEY_SERVICE
from tests.e2e.talk import ask, user_of
from tests.requirements import requirement
from tests.support.platform import Client
from tests.support.stores import rows_with
from tests.support.wait import wait_until


async def receipt(client: Client, deletion_id: str) -> Any:
    """The receipt once it is complete."""

    async def complete() -> Any:
        found = await client.must_of(ACCOUNT_SERVICE, "GetAccountDeletion", deletionId=deletion_id)
        return found if found["status"] == "COMPLETED" else None

    return await wait_until(complete, 90, "the erasure to be complete", every=0.25)


@requirement("access:erasure")
async def test_nothing_that_names_the_user_is_left_but_the_lock(
    alice: Client, bob: Client, stores: list[asyncpg.Connection]
) -> None:
    user = user_of(alice)
    conversation = await alice.conversation(title="a private title")
    await ask(alice, conversation, "a private question")
    await alice.must_of(
        API_KEY_SERVICE, "CreateApiKey", name="a key", scopes=["conversations:read"]
    )
    shared = await bob.conversation(title="bob's")
    await bob.must_of(
        AUTHORIZATION_SERVICE,
        "Share",
        object=f"conversation:{shared}",
        subject=f"user:{user}",
        role="EDITOR",
    )
    await ask(alice, shared, "said in a conversation of bob's")
    denied = await alice.call("DeleteConversation", conversationId=shared)
    assert denied.code == "PERMISSION_DENIED"

    async def written_down() -> bool:  # a moment after the answer
        log = await bob.must_of(AUDIT_SERVICE, "ListAuditEvents", action="ACCESS_DENIED")
        return user in json.dumps(log)

    await wait_until(written_down, what="the denial in bob's log")

    begun = await alice.must_of(ACCOUNT_SERVICE, "DeleteAccount")
    done = await receipt(bob, begun["deletionId"])

    removed = {part["app"]: part["removed"] for part in done["parts"]}
    assert removed["llm"] == {"conversations": "1"}
    assert removed["auth"]["apiKeys"] == "1"
    assert int(removed["auth"]["facts"]) >= 1
    assert user not in json.dumps(done)
    # What refuses her old tokens stays until the last of them is over, by design; OpenFGA's own history of changes
    # cannot be cut by its API; the feed of changes keeps each for five minutes.
    kept = {"auth.revocations", "auth.access_changes", "public.changelog"}

    async def nothing_left() -> bool:  # the workflow's own history goes last
        return set(await rows_with(stores, user)) <= kept

    await wait_until(nothing_left, 30, "the last trace to be gone")
    assert (await rows_with(stores, "a private")) == {}
    said = await bob.must("ListMessages", conversationId=shared)
    assert "said in a conversation of bob's" in [each["text"] for each in said["messages"]]


@requirement("access:erasure")
async def test_whoever_left_is_locked_out_within_five_seconds(alice: Client, bob: Client) -> None:
    begun = await alice.must_of(ACCOUNT_SERVICE, "DeleteAccount")

    async def locked_out() -> bool:
        return (await alice.call("ListConversations")).code == "UNAUTHENTICATED"

    await wait_until(locked_out, 5, "the user to be locked out")
    await receipt(bob, begun["deletionId"])


async def test_a_receipt_that_is_nobody_s_is_not_found(bob: Client) -> None:
    answer = await bob.call_of(
        ACCOUNT_SERVICE, "GetAccountDeletion", deletionId=f"deletion_{'0' * 32}"
    )
    assert (answer.status, answer.code) == (404, "NOT_FOUND")
