"""What a key's turns cost is booked on the key, once; past its budget it is refused."""

from typing import Any

import pytest

from services.contracts.auth.keys import API_KEY_SERVICE
from services.contracts.llm.conversations import CONVERSATIONS_READ, CONVERSATIONS_WRITE
from tests.e2e.talk import live_turn, prompt, until_held
from tests.requirements import requirement
from tests.support.platform import Client, Platform
from tests.support.wait import wait_until


@requirement("access:budgets")
async def test_a_key_past_its_budget_is_refused_and_its_owner_is_not(alice: Client) -> None:
    made = await alice.must_of(
        API_KEY_SERVICE,
        "CreateApiKey",
        name="thrifty",
        scopes=[CONVERSATIONS_READ, CONVERSATIONS_WRITE],
        budget={"amount": 0.5, "period": "TOTAL"},
    )
    robot = alice.as_(made["secret"])
    conversation = await robot.conversation()
    spent = 0.0
    for _ in range(2):
        said = prompt(text="dear", prompt_tokens=150_000)
        sent = await robot.must("SendMessage", conversationId=conversation, text=said.text)
        spent += sent["turn"]["usage"]["cost"]
        await booked(alice, made, spent)
    assert spent > 0.5

    async def refused() -> bool:
        answer = await robot.call("ListConversations")
        return (answer.status, answer.code) == (402, "BUDGET_EXCEEDED")

    await wait_until(refused, 5, "the key to be refused")
    await alice.must("SendMessage", conversationId=conversation, text="mine to pay")
    await booked(alice, made, spent)


async def booked(client: Client, made: dict[str, Any], spent: float) -> None:
    """Wait until a key is charged this much: a charge is owed from the turn's end on."""

    async def found() -> bool:
        key = await client.must_of(API_KEY_SERVICE, "GetApiKey", keyId=made["apiKey"]["keyId"])
        return key["spent"] == pytest.approx(spent)

    await wait_until(found, 10, f"{spent} to be booked")


@requirement("access:budgets", "turns:usage")
async def test_a_cancelled_turn_costs_its_key_what_was_sent_before_the_cut(
    platform: Platform, alice: Client
) -> None:
    made = await alice.must_of(
        API_KEY_SERVICE,
        "CreateApiKey",
        name="hasty",
        scopes=[CONVERSATIONS_READ, CONVERSATIONS_WRITE],
        budget={"amount": 10, "period": "TOTAL"},
    )
    robot = alice.as_(made["secret"])
    conversation = await robot.conversation()
    whole = await robot.must("SendMessage", conversationId=conversation, text="what is it worth?")
    spent = whole["turn"]["usage"]["cost"]
    assert not whole["turn"]["usage"]["estimated"]
    gate = f"cut-{conversation}"
    said = prompt(tokens=9, gate=gate, gate_after=3)
    async with live_turn(robot, conversation, said, until_text=True) as turn:
        await until_held(platform, gate)
        cancelled = await robot.must("CancelTurn", **turn.ref)
        fold = await turn.rest()
    usage = cancelled["usage"]
    assert usage["estimated"]
    assert usage["promptTokens"] > 0
    assert usage["completionTokens"] >= 3
    assert {"type": "usage", "data": usage} in [
        {"type": event["type"], "data": event["data"]} for event in fold.events
    ]
    await booked(alice, made, spent + usage["cost"])
