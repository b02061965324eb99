"""DeleteAccount removes a user's data from every store and confirms it by a receipt."""

import json
import uuid
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from services.contracts.auth.accounts import ACCOUNT_SERVICE
from services.contracts.auth.audit import AUDIT_SERVICE
from services.contracts.auth.authorization import AUTHORIZATION_SERVICE
from services.contracts.auth.keys import API_KEY_SERVICE
from tests.e2e.actions import ask, messages, user_of
from tests.requirements import requirement
from tests.support.platform import Client, Platform
from tests.support.text_search import tables_with
from tests.support.wait import wait_until


async def receipt(client: Client, deletion_id: str) -> Any:
    """Wait for the completed receipt."""

    async def complete() -> Any:
        found = await client.must_of(ACCOUNT_SERVICE, "GetAccountDeletion", deletionId=deletion_id)
        return found if found["status"] == "COMPLETED" else None

    return await wait_until(complete, 90, "the erasure to complete", every=0.25)


@dataclass(frozen=True, slots=True)
class Erased:
    """A user whose erasure is complete, and a conversation of bob's in which the user wrote."""

    user: str
    receipt: Any
    shared: list[str]


async def erased(own_platform: Platform) -> Erased:
    """Erase a user with a conversation, a key, a role in a conversation of bob's, and a denial in bob's audit log."""
    async with (
        own_platform.client(f"leaver-{uuid.uuid4().hex[:8]}") as alice,
        own_platform.client(f"bob-{uuid.uuid4().hex[:8]}") as bob,
    ):
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

        async def is_recorded() -> bool:
            log = await bob.must_of(AUDIT_SERVICE, "ListAuditEvents", action="ACCESS_DENIED")
            return user in json.dumps(log)

        await wait_until(is_recorded, what="the denial in bob's audit log")
        begun = await alice.must_of(ACCOUNT_SERVICE, "DeleteAccount")
        done = await receipt(bob, begun["deletionId"])
        return Erased(user, done, [each["text"] for each in await messages(bob, shared)])


@requirement("access:erasure")
@pytest.mark.waits(begin=erased)
async def test_an_erasure_leaves_only_the_revocation_of_the_user(
    waited: Erased, stores: list[asyncpg.Connection]
) -> None:
    removed = {part["app"]: part["removed"] for part in waited.receipt["parts"]}
    assert removed["llm"] == {"conversations": "1"}
    assert removed["auth"]["apiKeys"] == "1"
    assert int(removed["auth"]["facts"]) >= 1
    assert waited.user not in json.dumps(waited.receipt)
    # By design the revocation stays until her last token expires and the access feed keeps changes for five minutes;
    # OpenFGA's API cannot delete its change log.
    kept = {"auth.revocations", "auth.access_changes", "public.changelog"}

    async def nothing_left() -> bool:  # the workflow history is deleted last
        found = await tables_with(stores, [waited.user])
        return found.get(waited.user, set()) <= kept

    await wait_until(nothing_left, 30, "the last row to be deleted", every=0.5)
    assert await tables_with(stores, ["a private"]) == {}
    assert "said in a conversation of bob's" in waited.shared


@requirement("access:erasure")
async def test_a_deleted_user_is_refused_within_five_seconds(alice: Client, bob: Client) -> None:
    begun = await alice.must_of(ACCOUNT_SERVICE, "DeleteAccount")

    async def is_refused() -> bool:
        return (await alice.call("ListConversations")).code == "UNAUTHENTICATED"

    await wait_until(is_refused, 5, "the user to be refused")
    await receipt(bob, begun["deletionId"])


@requirement("access:erasure")
async def test_an_unknown_receipt_is_not_found(bob: Client) -> None:
    answer = await bob.call_of(
        ACCOUNT_SERVICE, "GetAccountDeletion", deletionId=f"deletion_{'0' * 32}"
    )
    assert (answer.status, answer.code) == (404, "NOT_FOUND")
