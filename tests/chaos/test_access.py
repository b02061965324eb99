"""Facts follow objects whatever dies in between, and nobody is let in while nobody can tell."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from services.contracts.auth.accounts import ACCOUNT_SERVICE
from services.contracts.auth.keys import API_KEY_SERVICE
from tests.chaos.access import Facts, key, receipt
from tests.chaos.faults import kill, restart, running, until_begun, until_issuing
from tests.requirements import requirement
from tests.support.failpoint_control import FailpointControl
from tests.support.model_server import script_text
from tests.support.patience import until_ok
from tests.support.platform import Client, Platform
from tests.support.wait import wait_until


@pytest.fixture
async def facts(platform: Platform) -> AsyncIterator[Facts]:
    """OpenFGA's own rows."""
    found = await Facts.of(platform)
    yield found
    await found.close()


@requirement("access:facts-follow-objects")
async def test_a_conversation_whose_owner_was_never_written_down_is_mended(
    platform: Platform, alice: Client, probed: str, socket: Path, facts: Facts
) -> None:
    async with FailpointControl(socket) as control:
        await restart(platform, "llm", control.environment("conversation.after_create:1:stop"))
        await until_begun(platform, probed)
        cut = asyncio.create_task(alice.call("CreateConversation", key(), title="half"))
        hit = await control.wait_for("conversation.after_create")
        await kill(platform, "llm")
        await asyncio.gather(cut, return_exceptions=True)
        await hit.release()
        await running(platform, "llm")
    # Nobody repeats the call: the reminder alone has to mend it.
    page = await until_ok(alice, "ListConversations")
    [made] = [each["conversationId"] for each in page["conversations"]]

    async def owned() -> bool:
        return await facts.about(made) == 1

    await wait_until(owned, 60, "the owner to be written down")
    assert (await until_ok(alice, "GetConversation", conversationId=made))["title"] == "half"


@requirement("access:facts-follow-objects")
async def test_a_deleted_conversation_leaves_no_fact_behind(
    platform: Platform, alice: Client, socket: Path, facts: Facts
) -> None:
    async with FailpointControl(socket) as control:
        await restart(platform, "llm", control.environment("conversation.before_forget:1:stop"))
        await until_begun(platform)
        gone = await alice.conversation()
        assert await facts.about(gone) == 1
        await alice.must("DeleteConversation", conversationId=gone)
        hit = await control.wait_for("conversation.before_forget", timeout=30)
        await kill(platform, "llm")
        await hit.release()
        await running(platform, "llm")

    async def forgotten() -> bool:
        return await facts.about(gone) == 0

    await wait_until(forgotten, 60, "the facts to be forgotten")


@requirement("access:fail-closed")
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
async def test_nobody_is_let_in_while_openfga_is_away(
    platform: Platform, alice: Client, sign: signal.Signals
) -> None:
    conversation = (await until_ok(alice, "CreateConversation"))["conversationId"]
    async with platform.client("mallory") as mallory:
        if sign is signal.SIGSTOP:
            await asyncio.to_thread(platform.stack.pause, "openfga")
        else:
            await asyncio.to_thread(platform.stack.halt, "openfga")
        try:

            async def closed() -> bool:
                answer = await alice.call("GetConversation", conversationId=conversation)
                assert answer.status in (200, 503), answer  # 200 while a yes is still believed
                return answer.code == "UNAVAILABLE"

            await wait_until(closed, 10, "the door to be closed")
            for _ in range(20):
                answer = await mallory.call("GetConversation", conversationId=conversation)
                assert answer.code == "UNAVAILABLE"
        finally:
            if sign is signal.SIGSTOP:
                await asyncio.to_thread(platform.stack.resume, "openfga")
            else:
                await asyncio.to_thread(platform.stack.restart, "openfga")
        found = await until_ok(alice, "GetConversation", conversationId=conversation)
        assert found["conversationId"] == conversation
        answer = await mallory.call("GetConversation", conversationId=conversation)
        assert answer.code == "NOT_FOUND"


@requirement("access:budgets")
async def test_a_turn_is_booked_once_whatever_dies_after_the_booking(
    platform: Platform, alice: Client, socket: Path
) -> None:
    budget = {"amount": 100, "period": "TOTAL"}
    made = await alice.must_of(
        API_KEY_SERVICE, "CreateApiKey", name="payer", scopes=["conversations:write"], budget=budget
    )
    robot = alice.as_(made["secret"])
    text, call = script_text(text="dear", prompt_tokens=150_000), key()
    async with FailpointControl(socket) as control:
        await restart(platform, "llm", control.environment("turn.after_charge:1:stop"))
        await until_begun(platform)
        conversation = (await until_ok(robot, "CreateConversation", key()))["conversationId"]
        cut = asyncio.create_task(
            robot.call("SendMessage", call, conversationId=conversation, text=text)
        )
        hit = await control.wait_for("turn.after_charge")
        await kill(platform, "llm")
        await asyncio.gather(cut, return_exceptions=True)
        await hit.release()
        await running(platform, "llm")
    sent = await until_ok(robot, "SendMessage", call, conversationId=conversation, text=text)
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
async def test_an_erasure_that_was_cut_is_finished(
    platform: Platform, socket: Path, facts: Facts, app: str, point: str
) -> None:
    user = f"leaver-{point.rpartition('.')[2].replace('_', '-')}"
    await until_issuing(platform)
    async with FailpointControl(socket) as control, platform.client(user) as leaver:
        await restart(platform, app, control.environment(f"{point}:1:stop"))
        await until_begun(platform)
        made = [await leaver.conversation(title="mine") for _ in range(3)]
        asked = asyncio.create_task(leaver.call_of(ACCOUNT_SERVICE, "DeleteAccount"))
        hit = await control.wait_for(point, timeout=30)
        deletion_id = await _deletion_of(platform, user)
        await kill(platform, app)
        await hit.release()
        await asyncio.gather(asked, return_exceptions=True)
        await running(platform, app)
        done = await receipt(leaver, deletion_id)
    assert {part["app"]: part["removed"] for part in done["parts"]}["llm"] == {"conversations": "3"}
    assert await facts.of_user(user) == 0
    assert [await facts.about(each) for each in made] == [0, 0, 0]


async def _deletion_of(platform: Platform, user: str) -> str:
    connection = await asyncpg.connect(platform.stack.database_url())
    try:
        return await connection.fetchval("SELECT id FROM auth.deletions WHERE user_id = $1", user)
    finally:
        await connection.close()
