"""Tuples, charges and erasures survive kills, and without OpenFGA access is refused."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from services.contracts.auth.accounts import ACCOUNT_SERVICE
from services.contracts.auth.keys import API_KEY_SERVICE
from services.contracts.llm.conversations import CONVERSATIONS_WRITE
from tests.chaos.faults import (
    kill,
    kill_at,
    restart,
    until_ready,
    until_tokens_issued,
    until_writable,
)
from tests.requirements import requirement
from tests.support.failpoint_control import FailpointControl
from tests.support.model_server import script_text
from tests.support.platform import Client, Platform, idempotency_key
from tests.support.retries import RETRYABLE_STATUSES, until_ok
from tests.support.wait import wait_until


@dataclass
class StoredTuples:
    """Relationship tuples as OpenFGA's database has them."""

    connection: asyncpg.Connection

    async def of_object(self, object_id: str) -> int:
        """How many tuples name an object."""
        count = "SELECT count(*) FROM tuple WHERE object_id = $1"
        return await self.connection.fetchval(count, object_id) or 0

    async def of_user(self, user_id: str) -> int:
        """How many tuples name a user."""
        count = "SELECT count(*) FROM tuple WHERE _user = $1"
        return await self.connection.fetchval(count, f"user:{user_id}") or 0


@pytest.fixture
async def tuples(platform: Platform) -> AsyncIterator[StoredTuples]:
    url = platform.stack.database_url()
    connection = await asyncpg.connect(url, database="openfga")
    yield StoredTuples(connection)
    await connection.close()


@requirement("access:tuples-follow-objects")
async def test_an_owner_tuple_that_a_kill_prevented_is_reconciled(
    platform: Platform, alice: Client, probe_conversation: str, socket: Path, tuples: StoredTuples
) -> None:
    async with FailpointControl(socket) as control:
        await restart(platform, "llm", control.environment("conversation.after_create:1:stop"))
        await until_writable(platform, probe_conversation)
        call = alice.call("CreateConversation", idempotency_key(), title="half")
        await kill_at(platform, control, "conversation.after_create", call)
    # The call is not repeated: the reminder reconciles the tuple.
    page = await until_ok(alice, "ListConversations")
    [made] = [each["conversationId"] for each in page["conversations"]]

    async def owned() -> bool:
        return await tuples.of_object(made) == 1

    await wait_until(owned, 60, "the owner tuple to be written")
    assert (await until_ok(alice, "GetConversation", conversationId=made))["title"] == "half"


@requirement("access:tuples-follow-objects")
async def test_a_deletion_interrupted_by_a_kill_leaves_no_tuple(
    platform: Platform, alice: Client, socket: Path, tuples: StoredTuples
) -> None:
    async with FailpointControl(socket) as control:
        await restart(platform, "llm", control.environment("conversation.before_forget:1:stop"))
        await until_writable(platform)
        gone = await alice.conversation()
        assert await tuples.of_object(gone) == 1
        call = alice.must("DeleteConversation", conversationId=gone)
        await kill_at(platform, control, "conversation.before_forget", call)

    async def forgotten() -> bool:
        return await tuples.of_object(gone) == 0

    await wait_until(forgotten, 60, "the tuples to be deleted")


@requirement("access:fail-closed")
@pytest.mark.parametrize("is_frozen", [False, True], ids=["halted", "frozen"])
async def test_access_is_unavailable_while_openfga_is_down(
    platform: Platform, alice: Client, is_frozen: bool
) -> None:
    stack = platform.stack
    stop, start = (stack.pause, stack.resume) if is_frozen else (stack.halt, stack.restart)
    conversation = (await until_ok(alice, "CreateConversation"))["conversationId"]
    async with platform.client("mallory") as mallory:
        await asyncio.to_thread(stop, "openfga")
        try:

            async def is_unavailable() -> bool:
                answer = await alice.call("GetConversation", conversationId=conversation)
                assert answer.status in (200, 503), answer  # 200 while the check is cached
                return answer.code == "UNAVAILABLE"

            await wait_until(is_unavailable, 10, "the cached check to expire")
            for _ in range(20):
                answer = await mallory.call("GetConversation", conversationId=conversation)
                assert answer.code == "UNAVAILABLE"
        finally:
            await asyncio.to_thread(start, "openfga")
        found = await until_ok(alice, "GetConversation", conversationId=conversation)
        assert found["conversationId"] == conversation
        answer = await mallory.call("GetConversation", conversationId=conversation)
        assert answer.code == "NOT_FOUND"


@requirement("access:budgets")
async def test_a_turn_is_charged_once_although_llm_dies_after_the_charge(
    platform: Platform, alice: Client, socket: Path
) -> None:
    budget = {"amount": 100, "period": "TOTAL"}
    made = await alice.must_of(
        API_KEY_SERVICE, "CreateApiKey", name="payer", scopes=[CONVERSATIONS_WRITE], budget=budget
    )
    robot = alice.as_(made["secret"])
    key, text = idempotency_key(), script_text(text="dear", prompt_tokens=150_000)
    async with FailpointControl(socket) as control:
        await restart(platform, "llm", control.environment("turn.after_charge:1:stop"))
        await until_writable(platform)
        created = await until_ok(robot, "CreateConversation", idempotency_key())
        body: dict[str, Any] = {"conversationId": created["conversationId"], "text": text}
        call = robot.call("SendMessage", key, **body)
        await kill_at(platform, control, "turn.after_charge", call)
    sent = await until_ok(robot, "SendMessage", key, **body)
    cost = sent["turn"]["usage"]["cost"]
    found = await alice.must_of(API_KEY_SERVICE, "GetApiKey", keyId=made["apiKey"]["keyId"])
    assert cost > 0
    assert found["spent"] == pytest.approx(cost)


@requirement("access:erasure")
@pytest.mark.parametrize(
    ("app", "point"),
    [
        ("auth", "erasure.after_receipt"),
        ("auth", "erasure.after_revoke"),
        ("llm", "erasure.after_delete"),
        ("auth", "erasure.after_part"),
    ],
)
async def test_an_interrupted_erasure_completes(
    platform: Platform, socket: Path, tuples: StoredTuples, app: str, point: str
) -> None:
    user = f"leaver-{point.rpartition('.')[2].replace('_', '-')}"
    await until_tokens_issued(platform)
    async with FailpointControl(socket) as control, platform.client(user) as leaver:
        await restart(platform, app, control.environment(f"{point}:1:stop"))
        await until_writable(platform)
        made = [await leaver.conversation(title="mine") for _ in range(3)]
        call = asyncio.create_task(leaver.call_of(ACCOUNT_SERVICE, "DeleteAccount"))
        hit = await control.wait_for(point, timeout=30)
        deletion_id = await _deletion_of(platform, user)
        await kill(platform, app)
        await asyncio.gather(call, return_exceptions=True)
        await hit.release()
        await until_ready(platform, app)
        done = await receipt(leaver, deletion_id)
    assert {part["app"]: part["removed"] for part in done["parts"]}["llm"] == {"conversations": "3"}
    assert await tuples.of_user(user) == 0
    assert [await tuples.of_object(each) for each in made] == [0, 0, 0]


async def receipt(client: Client, deletion_id: str) -> dict[str, Any]:
    """Wait for the completed receipt."""

    async def complete() -> dict[str, Any] | None:
        try:
            answer = await client.call_of(
                ACCOUNT_SERVICE, "GetAccountDeletion", deletionId=deletion_id
            )
        except (aiohttp.ClientError, OSError):
            return None
        if answer.status in RETRYABLE_STATUSES:
            return None
        assert answer.status == 200, answer
        return answer.body if answer.body["status"] == "COMPLETED" else None

    return await wait_until(complete, 90, "the erasure to complete", every=0.25)


async def _deletion_of(platform: Platform, user: str) -> str:
    connection = await asyncpg.connect(platform.stack.database_url())
    try:
        return await connection.fetchval("SELECT id FROM auth.deletions WHERE user_id = $1", user)
    finally:
        await connection.close()
