"""SIGSTOP of each process amid a turn: what stood still goes on, and nobody lost or doubled anything."""

import asyncio
import uuid
from typing import Any

import pytest

from tests.chaos.faults import frozen, running
from tests.chaos.turns import MIDDLE, TurnUnderFire, next_turn_works, release, script
from tests.requirements import requirement
from tests.support.patience import until_ok
from tests.support.platform import Client, Platform

FROZEN_SECONDS = 5.0
"""Longer than a heartbeat and than Dapr's patience with an app's health."""
PROCESSES = (
    "edge",
    "edge-daprd",
    "llm",
    "llm-daprd",
    "auth",
    "auth-daprd",
    "workflows",
    "workflows-daprd",
    "placement",
    "scheduler",
    "postgres",
    "valkey",
    "openfga",
)


@requirement("chaos:C3", "turns:one-terminal", "events:gap-free")
@pytest.mark.parametrize("target", PROCESSES)
async def test_a_frozen_process_goes_on_where_it_stood(
    platform: Platform, alice: Client, target: str
) -> None:
    gate, key = uuid.uuid4().hex, {"idempotency-key": uuid.uuid4().hex}
    held = await TurnUnderFire.begin(alice, script(gate=gate, gate_after=MIDDLE))
    await held.shows(MIDDLE)
    body: dict[str, Any] = {"conversationId": await alice.conversation(), "text": "amid a freeze"}
    async with frozen(platform, target):
        appending = asyncio.create_task(until_ok(alice, "AppendMessage", key, **body))
        await release(platform, gate)
        await asyncio.wait({held.reading, appending}, timeout=FROZEN_SECONDS)
    await running(platform, target)
    appended = await appending
    await held.ended()
    assert await held.problems() == []
    assert await until_ok(alice, "AppendMessage", key, **body) == appended
    listed = await until_ok(alice, "ListMessages", conversationId=body["conversationId"])
    assert [each["text"] for each in listed["messages"]] == ["amid a freeze"]
    await next_turn_works(held)
