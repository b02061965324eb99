"""A key is charged once per turn and refused past its budget."""

import pytest

from services.contracts.auth.keys import API_KEY_SERVICE
from tests.e2e.actions import api_key, live_turn, prompt
from tests.requirements import requirement
from tests.support.platform import Client, Platform
from tests.support.wait import wait_until

pytestmark = pytest.mark.usefixtures("own_platform")  # the model is scripted


@requirement("access:budgets")
async def test_a_key_past_its_budget_is_refused_and_its_owner_is_not(alice: Client) -> None:
    key_id, secret = await api_key(alice, budget={"amount": 0.5, "period": "TOTAL"})
    robot = alice.as_(secret)
    conversation = await robot.conversation()
    spent = 0.0
    for _ in range(2):
        said = prompt(text="dear", prompt_tokens=150_000)
        sent = await robot.must("SendMessage", conversationId=conversation, text=said.text)
        spent += sent["turn"]["usage"]["cost"]
        await until_charged(alice, key_id, spent)
    assert spent > 0.5

    async def refused() -> bool:
        answer = await robot.call("ListConversations")
        return (answer.status, answer.code) == (402, "BUDGET_EXCEEDED")

    await wait_until(refused, 5, "the key to be refused")
    await alice.must("SendMessage", conversationId=conversation, text="not charged to the key")
    await until_charged(alice, key_id, spent)


async def until_charged(client: Client, key_id: str, spent: float) -> None:
    """Wait for the charge, which is delivered after the end of the turn."""

    async def found() -> bool:
        key = await client.must_of(API_KEY_SERVICE, "GetApiKey", keyId=key_id)
        return key["spent"] == pytest.approx(spent)

    await wait_until(found, 10, f"a charge of {spent}")


@requirement("access:budgets", "turns:usage")
async def test_a_cancelled_turn_charges_its_key_for_what_was_sent_before_the_cancel(
    own_platform: Platform, alice: Client
) -> None:
    key_id, secret = await api_key(alice, budget={"amount": 10, "period": "TOTAL"})
    robot = alice.as_(secret)
    conversation = await robot.conversation()
    whole = await robot.must("SendMessage", conversationId=conversation, text="what is it worth?")
    spent = whole["turn"]["usage"]["cost"]
    assert not whole["turn"]["usage"]["estimated"]
    gate = f"cut-{conversation}"
    said = prompt(tokens=9, gate=gate, gate_after=3)
    async with live_turn(robot, conversation, said, until_text=True) as turn:
        await own_platform.wait_held(gate)
        cancelled = await robot.must("CancelTurn", **turn.ref)
        fold = await turn.rest()
    usage = cancelled["usage"]
    assert usage["estimated"]
    assert usage["promptTokens"] > 0
    assert usage["completionTokens"] >= 3
    assert {"type": "usage", "data": usage} in [
        {"type": event["type"], "data": event["data"]} for event in fold.events
    ]
    await until_charged(alice, key_id, spent + usage["cost"])
