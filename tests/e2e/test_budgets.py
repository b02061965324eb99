"""What a key's turns cost is booked on the key, once; past its budget it is refused."""

import pytest

from services.contracts.keys import API_KEY_SERVICE
from services.contracts.scopes import CONVERSATIONS_READ, CONVERSATIONS_WRITE
from tests.e2e.talk import prompt
from tests.requirements import requirement
from tests.support.platform import Client
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
        found = await alice.must_of(API_KEY_SERVICE, "GetApiKey", keyId=made["apiKey"]["keyId"])
        assert found["spent"] == pytest.approx(spent)
    assert spent > 0.5

    async def refused() -> bool:
        answer = await robot.call("ListConversations")
        return (answer.status, answer.code) == (402, "BUDGET_EXCEEDED")

    await wait_until(refused, 5, "the key to be refused")
    await alice.must("SendMessage", conversationId=conversation, text="mine to pay")
    found = await alice.must_of(API_KEY_SERVICE, "GetApiKey", keyId=made["apiKey"]["keyId"])
    assert found["spent"] == pytest.approx(spent)
