"""SIGSTOP of each process during a turn: after SIGCONT nothing is lost or duplicated."""

import asyncio
import uuid
from typing import Any

import pytest

from services.contracts.apps import APPS
from tests.chaos.faults import SERVERS, frozen, until_ready
from tests.chaos.turns import MIDDLE, ObservedTurn, next_turn_works, script
from tests.requirements import requirement
from tests.support.platform import Client, Platform, idempotency_key
from tests.support.retries import until_ok

FROZEN_SECONDS = 5.0
"""Longer than a lease renewal and than Dapr's timeout of app health checks."""
PROCESSES = (*(name for app in APPS for name in (app.id, f"{app.id}-daprd")), *SERVERS)


@requirement("chaos:C3", "turns:one-terminal", "events:gap-free")
@pytest.mark.parametrize("target", PROCESSES)
async def test_a_frozen_process_continues_without_losing_or_duplicating_anything(
    platform: Platform, alice: Client, target: str
) -> None:
    gate, key = uuid.uuid4().hex, idempotency_key()
    held = await ObservedTurn.begin(alice, script(gate=gate, gate_after=MIDDLE))
    await held.shows(MIDDLE)
    body: dict[str, Any] = {"conversationId": await alice.conversation(), "text": "during a freeze"}
    async with frozen(platform, target):
        appending = asyncio.create_task(until_ok(alice, "AppendMessage", key, **body))
        await platform.release_gate(gate)
        await asyncio.wait({held.reading, appending}, timeout=FROZEN_SECONDS)
    await until_ready(platform, target)
    appended = await appending
    await held.ended()
    assert await held.problems() == []
    assert await until_ok(alice, "AppendMessage", key, **body) == appended
    listed = await until_ok(alice, "ListMessages", conversationId=body["conversationId"])
    assert [each["text"] for each in listed["messages"]] == ["during a freeze"]
    await next_turn_works(held)
