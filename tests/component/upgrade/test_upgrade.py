"""A state folder of an earlier release, killed amid its work, on the platform of today: nothing is lost."""

from typing import Any, Final

import pytest

from services.contracts.auth.accounts import ACCOUNT_SERVICE
from services.contracts.auth.authorization import AUTHORIZATION_SERVICE
from services.contracts.auth.tokens import TOKEN_SERVICE
from tests.component.upgrade.conftest import Upgraded
from tests.component.upgrade.kept import ANSWER, KeptTurn
from tests.requirements import requirement
from tests.support.platform import Client
from tests.support.residual_data import residual_rows
from tests.support.wait import wait_until

pytestmark = pytest.mark.timeout(180)
SECONDS: Final = 90
"""Of each wait: a deletion whose workflow took other steps is begun again only after 10 s."""


async def ended(client: Client, turn: KeptTurn) -> dict[str, Any]:
    """Wait for the end of a turn."""

    async def has_ended() -> dict[str, Any] | None:
        found = await client.must("GetTurn", **turn.ref)
        return found if found["status"] not in ("QUEUED", "RUNNING") else None

    return await wait_until(has_ended, SECONDS, f"the end of {turn.turn_id}", every=0.1)


async def texts_of(client: Client, conversation: str) -> list[tuple[str, str]]:
    listed = await client.must("ListMessages", conversationId=conversation)
    return [(each["role"], each["text"]) for each in listed["messages"]]


@requirement("upgrade:state")
async def test_conversations_are_as_they_were_and_go_on(upgraded: Upgraded, alice: Client) -> None:
    kept = upgraded.kept
    listed = await alice.must("ListMessages", conversationId=kept.story)
    assert listed["messages"][: len(kept.messages)] == kept.messages
    story = await alice.must("GetConversation", conversationId=kept.story)
    assert (story["title"], story["metadata"]) == ("the story", {"kept": "yes"})
    found = await alice.must("ListConversations")
    ids = {each["conversationId"] for each in found["conversations"]}
    assert ids == {
        kept.story,
        kept.in_flight.conversation_id,
        kept.retrying.conversation_id,
    }
    sent = await alice.must("SendMessage", conversationId=kept.story, text="three")
    assert sent["message"]["text"] == "You said: three"
    assert int(sent["message"]["seq"]) == len(listed["messages"]) + 2


@requirement("upgrade:state")
async def test_a_key_used_before_the_upgrade_gets_the_same_reply(
    upgraded: Upgraded, alice: Client
) -> None:
    kept = upgraded.kept
    again = await alice.must(
        "AppendMessage",
        {"idempotency-key": kept.append_key},
        conversationId=kept.story,
        text="appended",
    )
    assert again == kept.appended


@requirement("upgrade:state")
async def test_api_keys_and_sessions_still_work(upgraded: Upgraded, alice: Client) -> None:
    kept = upgraded.kept
    body = await alice.as_(kept.api_key).must("GetConversation", conversationId=kept.story)
    assert body["conversationId"] == kept.story
    pair = await alice.must_of(TOKEN_SERVICE, "RefreshToken", refreshToken=kept.refresh_token)
    body = await alice.as_(pair["accessToken"]).must("GetConversation", conversationId=kept.story)
    assert body["conversationId"] == kept.story


@requirement("upgrade:work")
async def test_a_turn_in_flight_completes_and_the_queued_one_follows(
    upgraded: Upgraded, alice: Client
) -> None:
    kept = upgraded.kept
    await upgraded.platform.release_gate(kept.gate)
    turn = await ended(alice, kept.in_flight)
    assert turn["status"] == "COMPLETED", turn
    fold = await alice.reader("StreamEvents", kept.in_flight.ref).run()
    shown = [each["data"].get("text", "") for each in fold.events]
    assert (shown[: len(kept.shown)], fold.restarts, fold.text) == (kept.shown, 1, ANSWER)
    conversation = kept.in_flight.conversation_id

    async def all_said() -> bool:
        return len(await texts_of(alice, conversation)) == 4

    await wait_until(all_said, SECONDS, "the answer to the queued message")
    assert await texts_of(alice, conversation) == [
        ("USER", kept.in_flight.text),
        ("ASSISTANT", ANSWER),
        ("USER", kept.queued_text),
        ("ASSISTANT", f"You said: {kept.queued_text}"),
    ]


@requirement("upgrade:work")
async def test_a_workflow_that_waited_makes_the_next_attempt(
    upgraded: Upgraded, alice: Client
) -> None:
    turn = await ended(alice, upgraded.kept.retrying)
    assert (turn["status"], turn["attempts"]) == ("COMPLETED", 2)


@requirement("upgrade:work")
async def test_an_undelivered_change_of_access_is_delivered(
    upgraded: Upgraded, bob: Client, dave: Client
) -> None:
    target = f"conversation:{upgraded.kept.story}"

    async def is_shared() -> bool:
        found = await dave.must_of(AUTHORIZATION_SERVICE, "ListSharedWithMe")
        return found["objects"] == [target]

    await wait_until(is_shared, SECONDS, "the link that dave opened to give access")
    for reader in (bob, dave):
        await reader.must("GetConversation", conversationId=upgraded.kept.story)
        denied = await reader.call(
            "AppendMessage", conversationId=upgraded.kept.story, text="a viewer's"
        )
        assert denied.code == "PERMISSION_DENIED"


@requirement("upgrade:work")
async def test_deletions_half_done_are_finished(upgraded: Upgraded, alice: Client) -> None:
    kept = upgraded.kept
    gone = await alice.call("GetConversation", conversationId=kept.deleted)
    assert gone.code == "NOT_FOUND"

    async def is_erased() -> bool:
        found = await alice.must_of(
            ACCOUNT_SERVICE, "GetAccountDeletion", deletionId=kept.deletion_id
        )
        return found["status"] == "COMPLETED"

    await wait_until(is_erased, SECONDS, "the account deletion to complete", every=0.25)

    async def is_purged() -> bool:
        ids = [kept.deleted, kept.erased_conversation]
        return not await residual_rows(upgraded.platform, ids)

    await wait_until(is_purged, SECONDS, "the rows of deleted conversations to go", every=0.5)
