"""Boots with one part missing first: nothing is accepted and then lost, and all is well once the part is there."""

import asyncio
from collections.abc import Callable

import aiohttp
import pytest

from tests.chaos.faults import Recovery, running
from tests.requirements import requirement
from tests.support.patience import until_ok
from tests.support.platform import Client, Platform

APPS = ("auth", "llm", "workflows", "edge")
SIDECARS = tuple(f"{app}-daprd" for app in APPS)
PARTS = {
    "apps": APPS,
    "sidecars": SIDECARS,
    "placement": ("placement",),
    "scheduler": ("scheduler",),
    "postgres": ("postgres",),
    "valkey": ("valkey",),
    "openfga": ("openfga",),
}
ASKS = 5


@requirement("chaos:C1", "turns:liveness")
@pytest.mark.parametrize("missing", PARTS)
async def test_a_boot_without_a_part_is_ready_once_the_part_is_there(
    platform: Platform, alice: Client, figure: Callable[..., None], missing: str
) -> None:
    conversation = await until_ok(alice, "CreateConversation")
    stack = platform.stack
    for name in (*APPS, *SIDECARS, "placement", "scheduler", *PARTS[missing]):
        await asyncio.to_thread(stack.halt, name)
    others = [part for part in PARTS if part != missing]
    for name in (name for part in reversed(others) for name in PARTS[part]):
        await asyncio.to_thread(stack.supervisor.start, name)
    accepted = await _ask(alice, conversation["conversationId"])
    for name in PARTS[missing]:
        await asyncio.to_thread(stack.supervisor.start, name)
    recovery = Recovery(alice)
    await running(platform, *(name for part in PARTS.values() for name in part))
    figure(figure="boot", missing_first=missing, seconds=await recovery.seconds())
    listed = await until_ok(
        alice, "ListMessages", conversationId=conversation["conversationId"], limit=100
    )
    kept = [each["messageId"] for each in listed["messages"]]
    assert set(accepted) <= set(kept), "accepted, and lost"


async def _ask(client: Client, conversation: str) -> list[str]:
    """Ask while the part is missing; what was answered with success must be there later."""
    accepted: list[str] = []
    for number in range(ASKS):
        try:
            async with asyncio.timeout(2):
                answer = await client.call(
                    "AppendMessage", conversationId=conversation, text=f"early {number}"
                )
        except (TimeoutError, aiohttp.ClientError, OSError):
            continue
        if answer.status == 200:
            accepted.append(answer.body["message"]["messageId"])
    return accepted
