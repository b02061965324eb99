"""Starts with one part missing: nothing accepted is lost, and the platform is ready once the part starts."""

import asyncio
from collections.abc import Callable

import aiohttp
import pytest

from services.contracts.apps import APPS
from tests.chaos.faults import SERVERS, Recovery, halt, start, until_ready
from tests.requirements import requirement
from tests.support.platform import Client, Platform
from tests.support.retries import until_ok

PARTS = {
    "apps": tuple(app.id for app in APPS),
    "sidecars": tuple(f"{app.id}-daprd" for app in APPS),
    **{name: (name,) for name in SERVERS},
}
APPENDS = 5


@requirement("chaos:C1", "turns:liveness")
@pytest.mark.parametrize("missing", PARTS)
async def test_a_start_with_a_part_missing_is_ready_once_the_part_starts(
    platform: Platform, alice: Client, figure: Callable[..., None], missing: str
) -> None:
    conversation = await until_ok(alice, "CreateConversation")
    control_plane = ("placement", "scheduler")
    await halt(platform, *PARTS["apps"], *PARTS["sidecars"], *control_plane, *PARTS[missing])
    others = [part for part in PARTS if part != missing]
    await start(platform, *(name for part in reversed(others) for name in PARTS[part]))
    accepted = await _append(alice, conversation["conversationId"])
    await start(platform, *PARTS[missing])
    recovery = Recovery(alice)
    await until_ready(platform, *(name for part in PARTS.values() for name in part))
    figure(figure="boot", missing_first=missing, seconds=await recovery.seconds())
    listed = await until_ok(
        alice, "ListMessages", conversationId=conversation["conversationId"], limit=100
    )
    kept = [each["messageId"] for each in listed["messages"]]
    assert set(accepted) <= set(kept), "an accepted message is lost"


async def _append(client: Client, conversation: str) -> list[str]:
    """Append while the part is missing; ids of the messages that were accepted."""
    accepted: list[str] = []
    for number in range(APPENDS):
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
