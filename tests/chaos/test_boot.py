"""Starts with one part missing: it is not ready, loses nothing that it accepts, and is ready once the part starts."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp
import pytest

from services.contracts.apps import APPS
from tests.chaos.faults import SERVERS, Recovery, halt, start, until_ready
from tests.requirements import requirement
from tests.support.platform import Client, Platform
from tests.support.retries import RETRYABLE_STATUSES, until_ok
from tests.support.wait import wait_until

SIDECARS = tuple(f"{app.id}-daprd" for app in APPS)
PARTS = {
    "apps": tuple(app.id for app in APPS),
    "sidecars": SIDECARS,
    **{name: (name,) for name in SERVERS},
}
NOT_READY = {
    "apps": SIDECARS,
    "sidecars": ("auth", "llm", "workflows"),
    "placement": SIDECARS,
    "scheduler": SIDECARS,
    "postgres": ("openfga", "auth", "auth-daprd", "llm", "llm-daprd", "workflows-daprd"),
    "valkey": ("auth-daprd", "llm-daprd"),
    "openfga": (),
}
"""The processes that are not ready without a part, beside its own; all others are."""
UNNEEDED = ("scheduler",)
"""Parts without which appends are accepted."""
SILENT = ("apps", "placement")
"""Parts without which no call is answered: there is no edge, or the sidecar waits."""
APPENDS = 5
CALL_SECONDS = 2.0


@dataclass
class Appends:
    """Appends that are tried while a part is missing."""

    client: Client
    conversation: str
    accepted: list[str] = field(default_factory=list[str])
    refused: Counter[str] = field(default_factory=Counter[str])
    unanswered: Counter[str] = field(default_factory=Counter[str])

    async def one(self) -> None:
        """Append once, and count how that ended."""
        try:
            async with asyncio.timeout(CALL_SECONDS):
                answer = await self.client.call(
                    "AppendMessage", conversationId=self.conversation, text="early"
                )
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            self.unanswered[type(error).__name__] += 1
            return
        if answer.status == 200:
            self.accepted.append(answer.body["message"]["messageId"])
            return
        assert answer.status in RETRYABLE_STATUSES, answer
        self.refused[answer.code or str(answer.status)] += 1

    async def are_accepted(self) -> bool:
        """Append once more; whether enough were accepted."""
        await self.one()
        return len(self.accepted) >= APPENDS

    async def lost(self) -> set[str]:
        """Accepted messages that are not in the conversation."""
        listed = await until_ok(
            self.client, "ListMessages", conversationId=self.conversation, limit=100
        )
        return {*self.accepted} - {each["messageId"] for each in listed["messages"]}


@requirement("chaos:C1", "turns:liveness")
@pytest.mark.parametrize("missing", PARTS)
async def test_a_start_with_a_part_missing_is_ready_once_the_part_starts(
    platform: Platform, alice: Client, figure: Callable[..., None], missing: str
) -> None:
    appends = Appends(alice, (await until_ok(alice, "CreateConversation"))["conversationId"])
    control_plane = ("placement", "scheduler")
    await halt(platform, *PARTS["apps"], *PARTS["sidecars"], *control_plane, *PARTS[missing])
    others = [name for part in reversed(PARTS) if part != missing for name in PARTS[part]]
    expected = set(others) - set(NOT_READY[missing])
    await start(platform, *others)
    await wait_until(
        lambda: _ready(platform, others) == expected, 60, f"all that can be ready without {missing}"
    )
    if missing in UNNEEDED:
        await wait_until(appends.are_accepted, 60, f"appends without {missing}")
    else:
        await asyncio.gather(*(appends.one() for _ in range(APPENDS)))
        assert appends.accepted == []
        assert missing in SILENT or appends.refused.total() > 0, appends.unanswered
    assert _ready(platform, others) == expected
    await start(platform, *PARTS[missing])
    recovery = Recovery(alice)
    await until_ready(platform, *(name for part in PARTS.values() for name in part))
    figure(figure="boot", missing_first=missing, seconds=await recovery.seconds())
    assert await appends.lost() == set(), "an accepted message is lost"


def _ready(platform: Platform, names: list[str]) -> set[str]:
    return {name for name in names if platform.stack.is_ready(name)}
