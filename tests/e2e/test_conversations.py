"""Conversations and messages through the edge."""

import asyncio
import uuid
from typing import Any

import asyncpg
import pytest

from services.contracts.auth.accounts import ACCOUNT_SERVICE
from tests.e2e.actions import ask, deactivate, live_turn, messages, missing, prompt, user_of
from tests.e2e.test_erasure import receipt
from tests.requirements import requirement
from tests.support.platform import Client, Platform
from tests.support.retries import until_ok
from tests.support.wait import wait_until

UNICODE = "naïve 日本語 🙂 👩‍👩‍👧 e\u0301 \u2028 \u0000 \\ \" ' <b> \t\r\n 2024-01-02 𝔘"


async def all_pages(client: Client, method: str, field: str, **request: Any) -> list[list[Any]]:
    """Read every page of a list."""
    pages: list[list[Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = await client.must(method, **request, **cursor)
        pages.append(page[field])
        if "nextCursor" not in page:
            return pages
        cursor = {"cursor": page["nextCursor"]}


@requirement("conversations:create")
async def test_a_new_conversation_is_read_and_listed_by_its_owner(alice: Client) -> None:
    created = await alice.must(
        "CreateConversation", title="Trip", metadata={"team": "red"}, systemPrompt="Be brief."
    )
    assert created["messageCount"] == "0"
    assert await alice.must("GetConversation", conversationId=created["conversationId"]) == created
    assert (await alice.must("ListConversations"))["conversations"] == [created]


@requirement("conversations:update")
async def test_an_update_changes_what_it_names_and_nothing_else(alice: Client) -> None:
    before = await alice.must(
        "CreateConversation", title="Old", metadata={"a": "1"}, model="scripted/two"
    )
    after = await alice.must(
        "UpdateConversation", conversationId=before["conversationId"], title="New"
    )
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"title", "updatedAt"}
    assert after["title"] == "New"
    replaced = await alice.must(
        "UpdateConversation", conversationId=before["conversationId"], metadata={"b": "2"}
    )
    assert replaced["metadata"] == {"b": "2"}


@requirement("conversations:delete")
async def test_a_deleted_conversation_is_gone_with_its_messages(
    alice: Client, conversation: str, database: asyncpg.Connection
) -> None:
    await ask(alice, conversation, "remember this")
    ref = {"conversationId": conversation}
    assert await alice.must("DeleteConversation", **ref) == {}
    for method, fields in (
        ("GetConversation", {}),
        ("UpdateConversation", {"title": "again"}),
        ("ListMessages", {}),
        ("AppendMessage", {"text": "late"}),
        ("SendMessage", {"text": "late"}),
        ("StreamMessage", {"text": "late"}),
    ):
        answer = await alice.call(method, **ref, **fields)
        assert (answer.status, answer.code) == (404, "NOT_FOUND"), method
    assert (await alice.must("ListConversations"))["conversations"] == []

    # The stream is deleted once its terminal event has been readable for LLM_KEPT_SECONDS.
    later = "UPDATE events.streams SET closed_at = now() - interval '2 minutes' WHERE subject = $1"
    await database.execute(later, conversation)

    async def erased() -> bool:
        kept = "SELECT key FROM dapr.state WHERE key LIKE $1"
        rows = await database.fetch(kept, f"%{conversation}%")
        streams = "SELECT count(*) FROM events.streams WHERE subject = $1"
        return [row["key"].rsplit("/", 1)[-1] for row in rows] == [
            "head"
        ] and await database.fetchval(streams, conversation) == 0

    await wait_until(erased, 25, "the messages and events to be removed")


@requirement("conversations:delete")
async def test_a_deleted_conversation_leaves_no_turn_in_any_state_of_its_stream(
    own_platform: Platform, alice: Client, conversation: str, database: asyncpg.Connection
) -> None:
    await ask(alice, conversation, "a turn that loses its stream")
    await database.execute("DELETE FROM events.streams WHERE subject = $1", conversation)
    gate = f"left-{conversation}"
    async with live_turn(alice, conversation, prompt(tokens=2, gate=gate)) as turn:
        await own_platform.wait_held(gate)
        body = {"conversationId": conversation, "text": "a turn that waits"}
        async with alice.stream("StreamMessage", admission="ENQUEUE", **body) as reply:
            assert reply.status == 200
            await alice.must("DeleteConversation", conversationId=conversation)
        await turn.rest()

    async def erased() -> bool:
        later = (
            "UPDATE events.streams SET closed_at = now() - interval '2 minutes' WHERE subject = $1"
        )
        await database.execute(later, conversation)
        kept = "SELECT key FROM dapr.state WHERE key LIKE $1"
        rows = await database.fetch(kept, f"%ConversationActor/{conversation}/%")
        return [row["key"].rsplit("/", 1)[-1] for row in rows] == ["head"]

    await wait_until(erased, 40, "all turns to be removed")


@requirement("conversations:delete")
async def test_deleting_a_conversation_cancels_its_running_turn(
    own_platform: Platform, alice: Client, conversation: str
) -> None:
    said = prompt(tokens=5, gate=f"delete-{conversation}", gate_after=2)
    async with live_turn(alice, conversation, said, until_text=True) as turn:
        await own_platform.wait_held(f"delete-{conversation}")
        await alice.must("DeleteConversation", conversationId=conversation)
        assert (await turn.rest()).terminal == "run.cancelled"
    assert [call["outcome"] for call in await own_platform.model_calls(said.word)] == [
        "client_closed"
    ]


async def index_rows(database: asyncpg.Connection, conversation: str) -> int:
    """Number of rows of the owner's index that name a conversation."""
    named = """
        SELECT 1 FROM dapr.state WHERE key LIKE '%ConversationManagerActor/%'
        AND (key LIKE $1 OR convert_from(value, 'UTF8') LIKE $1)
    """
    return len(await database.fetch(named, f"%{conversation}%"))


async def until_out_of_index(database: asyncpg.Connection, conversation: str) -> None:
    """Wait until the owner's index has no row of a deleted conversation."""

    async def gone() -> bool:
        return await index_rows(database, conversation) == 0

    await wait_until(gone, 45, "the conversation to leave the index")


@requirement("conversations:delete-again")
async def test_an_owner_can_repeat_a_deletion_at_any_time(
    alice: Client, bob: Client, conversation: str, database: asyncpg.Connection
) -> None:
    ref = {"conversationId": conversation}
    for key in (None, "one", "another", None):
        headers = {"idempotency-key": f"{key}-{conversation}"} if key else {}
        assert await alice.must("DeleteConversation", headers, **ref) == {}
    await until_out_of_index(database, conversation)
    assert await alice.must("DeleteConversation", **ref) == {}
    foreign = await bob.call("DeleteConversation", **ref)
    never = await bob.call("DeleteConversation", conversationId=missing("conv"))
    assert (foreign.status, foreign.code) == (never.status, never.code) == (404, "NOT_FOUND")


@requirement("conversations:create", "access:erasure")
async def test_repeating_the_create_key_of_a_deleted_conversation_adds_no_index_entry(
    alice: Client, bob: Client, database: asyncpg.Connection
) -> None:
    key = {"idempotency-key": f"old-{user_of(alice)}"}
    made = (await alice.must("CreateConversation", key))["conversationId"]
    await alice.must("DeleteConversation", conversationId=made)
    await until_out_of_index(database, made)
    await database.execute("DELETE FROM events.idempotency WHERE key = $1", key["idempotency-key"])

    answer = await alice.call("CreateConversation", key)
    assert (answer.status, answer.code) == (404, "NOT_FOUND")
    await until_out_of_index(database, made)
    assert await alice.must("DeleteConversation", conversationId=made) == {}
    begun = await alice.must_of(ACCOUNT_SERVICE, "DeleteAccount")
    await receipt(bob, begun["deletionId"])


async def erased_with_a_ghost(own_platform: Platform) -> int:
    """Erase a user whose index has an entry without a conversation; the rows of the index that are left of it."""
    ghost = missing("conv")
    entry = """
        INSERT INTO dapr.state (key, value)
        SELECT replace(key, 'entry/1', 'entry/2'), convert_to(replace(replace(
            convert_from(value, 'UTF8'), '"position":1', '"position":2'), $2, $3), 'UTF8')
        FROM dapr.state WHERE key LIKE $1 || '/entry/1'
    """
    head = """
        UPDATE dapr.state SET value = convert_to(replace(
            convert_from(value, 'UTF8'), '"last_position":1', '"last_position":2'), 'UTF8')
        WHERE key LIKE $1 || '/head'
    """
    database = await asyncpg.connect(own_platform.stack.database_url())
    async with own_platform.client(f"haunted-{uuid.uuid4().hex[:8]}") as client:
        conversation = await client.conversation()
        index = f"%ConversationManagerActor/{user_of(client)}"
        assert await database.execute(entry, index, conversation, ghost) == "INSERT 0 1"
        assert await database.execute(head, index) == "UPDATE 1"
        await deactivate(own_platform, "ConversationManagerActor", user_of(client))
        assert await index_rows(database, ghost) == 1
        begun = await client.must_of(ACCOUNT_SERVICE, "DeleteAccount")
        async with own_platform.client("reads-a-receipt") as other:
            await receipt(other, begun["deletionId"])
    rows = await index_rows(database, ghost)
    await database.close()
    return rows


@requirement("access:erasure")
@pytest.mark.waits(begin=erased_with_a_ghost)
async def test_an_erasure_completes_although_the_index_has_an_entry_without_a_conversation(
    waited: int,
) -> None:
    assert waited == 0


@requirement("conversations:create")
@pytest.mark.disturbs  # what waits beside would be refused as overload
async def test_concurrent_creations_leave_no_pending_row(
    alice: Client, database: asyncpg.Connection
) -> None:
    made = [
        each["conversationId"]
        for each in await asyncio.gather(
            *(until_ok(alice, "CreateConversation") for _ in range(150))
        )
    ]
    assert len(set(made)) == 150

    async def settled() -> bool:
        like = f"%ConversationManagerActor/{user_of(alice)}/pending/%"
        return await database.fetch("SELECT 1 FROM dapr.state WHERE key LIKE $1", like) == []

    await wait_until(settled, 45, "the pending rows to be removed", every=0.2)
    pages = await all_pages(alice, "ListConversations", "conversations", limit=100)
    assert sorted(each["conversationId"] for page in pages for each in page) == sorted(made)


@requirement("conversations:list")
@pytest.mark.parametrize("order", ["ASCENDING", "DESCENDING"])
async def test_conversations_are_listed_in_pages_in_the_order_of_creation(
    alice: Client, order: str
) -> None:
    created = [await alice.conversation(title=str(number)) for number in range(5)]
    await alice.must("UpdateConversation", conversationId=created[1], title="touched")
    pages = await all_pages(alice, "ListConversations", "conversations", limit=2, order=order)
    assert [len(page) for page in pages] == [2, 2, 1]
    listed = [each["conversationId"] for page in pages for each in page]
    assert listed == (created if order == "ASCENDING" else created[::-1])


@requirement("conversations:list")
async def test_a_cursor_continues_after_its_page_although_the_list_changed(alice: Client) -> None:
    first, second, third = [await alice.conversation() for _ in range(3)]
    page = await alice.must("ListConversations", limit=1)
    assert [each["conversationId"] for each in page["conversations"]] == [third]
    await alice.conversation()
    await alice.must("DeleteConversation", conversationId=second)
    rest = await alice.must("ListConversations", limit=5, cursor=page["nextCursor"])
    assert [each["conversationId"] for each in rest["conversations"]] == [first]


@requirement("conversations:messages")
@pytest.mark.parametrize("order", ["ASCENDING", "DESCENDING"])
async def test_messages_are_listed_in_both_directions(
    alice: Client, conversation: str, order: str
) -> None:
    for number in range(5):
        await alice.must("AppendMessage", conversationId=conversation, text=f"message {number}")
    pages = await all_pages(
        alice, "ListMessages", "messages", conversationId=conversation, limit=2, order=order
    )
    assert [len(page) for page in pages] == [2, 2, 1]
    listed = [each for page in pages for each in page]
    listed = listed if order == "ASCENDING" else listed[::-1]
    assert [each["seq"] for each in listed] == ["1", "2", "3", "4", "5"]
    assert [each["text"] for each in listed] == [f"message {number}" for number in range(5)]


@requirement("conversations:append")
async def test_an_appended_message_is_stored_without_a_model_call(
    own_platform: Platform, alice: Client, conversation: str
) -> None:
    said = prompt()
    stored = await alice.must(
        "AppendMessage", conversationId=conversation, role="ASSISTANT", text=said.text
    )
    assert stored["message"]["role"] == "ASSISTANT"
    assert await messages(alice, conversation) == [stored["message"]]
    assert said.word not in str(await own_platform.model("/__journal"))


@requirement("conversations:append", "conversations:messages")
async def test_text_is_returned_unchanged(alice: Client, conversation: str) -> None:
    text = UNICODE.replace("\u0000", "")
    await alice.must("AppendMessage", conversationId=conversation, text=text)
    await alice.must("UpdateConversation", conversationId=conversation, title=text[:40])
    assert [each["text"] for each in await messages(alice, conversation)] == [text]
    found = await alice.must("GetConversation", conversationId=conversation)
    assert found["title"] == text[:40]


@requirement("conversations:cursor-of-another")
@pytest.mark.parametrize("cursor", ["", "AAAA", "ÿ", "x" * 512, "🙂", "eyJhIjoxfQ", "..%2f"])
async def test_a_malformed_cursor_names_the_field(
    alice: Client, conversation: str, cursor: str
) -> None:
    for method, request in (
        ("ListConversations", {}),
        ("ListMessages", {"conversationId": conversation}),
    ):
        answer = await alice.call(method, cursor=cursor, **request)
        if cursor == "":  # in proto3 an empty string is an absent field
            assert answer.status == 200
            continue
        assert answer.code == "INVALID_ARGUMENT", method
        assert answer.body["error"]["details"]["fieldViolations"][0]["field"] == "cursor"


@requirement("conversations:cursor-of-another")
async def test_a_cursor_of_another_list_or_user_is_refused(alice: Client, bob: Client) -> None:
    cursors: dict[str, str] = {}
    ids: dict[str, str] = {}
    for name, client in (("alice", alice), ("bob", bob)):
        ids[name] = await client.conversation()
        await client.conversation()
        for _ in range(2):
            await client.must("AppendMessage", conversationId=ids[name], text="hi")
        listed = await client.must("ListConversations", limit=1)
        cursors[name] = listed["nextCursor"]
    page = await bob.must("ListMessages", conversationId=ids["bob"], limit=1)
    for cursor in (cursors["bob"], page["nextCursor"]):
        assert (await alice.call("ListConversations", cursor=cursor)).code == "INVALID_ARGUMENT"
        answer = await alice.call("ListMessages", conversationId=ids["alice"], cursor=cursor)
        assert answer.code == "INVALID_ARGUMENT"
    turned = await alice.call("ListConversations", cursor=cursors["alice"], order="ASCENDING")
    assert turned.code == "INVALID_ARGUMENT"


@requirement("conversations:growth")
async def test_the_rows_written_by_an_append_do_not_grow_with_the_conversation(
    alice: Client, conversation: str, database: asyncpg.Connection
) -> None:
    like = f"%{conversation}%"

    async def stored() -> tuple[int, int]:
        rows = await database.fetch(
            "SELECT key, length(value) AS size FROM dapr.state WHERE key LIKE $1", like
        )
        head = next(row["size"] for row in rows if row["key"].endswith("/head"))
        return len(rows), head

    async def append(count: int) -> None:
        for _ in range(count):
            await alice.must("AppendMessage", conversationId=conversation, text="x" * 400)

    await append(10)
    rows_at_10, head_at_10 = await stored()
    await append(190)
    rows_at_200, head_at_200 = await stored()
    assert rows_at_200 - rows_at_10 == 190
    assert head_at_200 <= head_at_10 + 8
