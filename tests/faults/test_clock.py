"""The wall clocks of the apps jump by ten minutes, while those of the edge and of Postgres are right."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

import pytest

from services.cli.edge import StackEndpoints
from services.cli.tokens import issue_token
from services.contracts.auth.keys import API_KEY_SERVICE
from tests.chaos.turns import MIDDLE, ObservedTurn, next_turn_works, problems_of, script
from tests.e2e.actions import api_key, exchanged, until_refused
from tests.faults.load import Load
from tests.requirements import requirement
from tests.support.platform import Client, Platform
from tests.support.retries import RECOVERY_SECONDS, until_ok
from tests.support.shifted_clock import ShiftedClock
from tests.support.wait import wait_until

pytestmark = pytest.mark.long

JUMP: Final = 600.0
SKEW: Final = 60.0
HELD_SECONDS: Final = {JUMP: 4.0, -JUMP: 14.0}
"""Several ticks of recovery; behind, also the grace after a deadline: a turn may take 5 minutes, so it seems over."""
POLLED_SECONDS: Final = 5.0
"""Within which the edge reads the list of revocations again."""
BOTH: Final = pytest.mark.parametrize("jump", [JUMP, -JUMP], ids=["ahead", "behind"])


@requirement("chaos:clock", "events:gap-free", "turns:one-terminal")
@BOTH
async def test_turns_and_messages_go_on_when_the_clocks_of_the_apps_jump(
    platform: Platform, clock: ShiftedClock, alice: Client, jump: float
) -> None:
    gate = uuid.uuid4().hex
    attempts = script(gate=gate, gate_after=MIDDLE)
    before = await ObservedTurn.begin(alice, attempts)
    await before.shows(MIDDLE)
    async with Load.running(alice) as load, _jumped(clock, alice, jump):
        after = await ObservedTurn.begin(alice, attempts)
        await after.shows(MIDDLE)
        held_until = time.monotonic() + HELD_SECONDS[jump]
        await wait_until(lambda: time.monotonic() >= held_until, 20, every=0.2)
        await platform.release_gate(gate)
        async with asyncio.timeout(RECOVERY_SECONDS):
            await asyncio.gather(before.ended(), after.ended())
        since = time.monotonic()
        await wait_until(
            lambda: load.succeeded("AppendMessage", since, time.monotonic()), 30, "an append"
        )
    turns = [before, after]
    assert [await turn.model_calls(platform) for turn in turns] == [1, 1], "taken over falsely"
    assert await load.find_problems() == []
    assert await problems_of(turns) == []
    await next_turn_works(after)


@requirement("chaos:clock", "access:edge:revocation")
@BOTH
async def test_tokens_are_accepted_neither_early_nor_late_when_the_clocks_of_the_apps_jump(
    platform: Platform, clock: ShiftedClock, alice: Client, jump: float
) -> None:
    key_id, secret = await api_key(alice)
    robot = alice.as_(await exchanged(alice, secret))
    await robot.must("ListConversations")
    async with _jumped(clock, alice, jump):
        await alice.must("ListConversations")  # a token from before the jump is valid
        issued = alice.as_(await asyncio.to_thread(_short_token, platform))
        assert (await issued.call("ListConversations")).code == "UNAUTHENTICATED"
        await alice.must_of(API_KEY_SERVICE, "RevokeApiKey", keyId=key_id)
        await until_refused(robot)
    async with _jumped(clock, alice, -jump):
        polled = time.monotonic() + POLLED_SECONDS
        await wait_until(lambda: time.monotonic() >= polled, POLLED_SECONDS + 5, every=0.2)
        assert (await robot.call("ListConversations")).code == "UNAUTHENTICATED"


def _short_token(platform: Platform) -> str:
    """A token that auth issues for half the time of the jump: by a right clock not yet valid, or expired."""
    state = platform.stack.state.path
    endpoints = StackEndpoints(platform.edge_url, {"auth": platform.stack.url("auth-daprd")})
    return issue_token(
        state, "bob", "bob@example.com", ttl_seconds=int(JUMP / 2), endpoints=endpoints
    )


@asynccontextmanager
async def _jumped(clock: ShiftedClock, client: Client, seconds: float) -> AsyncIterator[None]:
    """Shift the clocks of the apps during the block, which begins once they follow."""
    conversation = (await until_ok(client, "CreateConversation"))["conversationId"]

    async def is_shifted() -> bool:
        await until_ok(client, "AppendMessage", conversationId=conversation, text="what time?")
        listed = await until_ok(client, "ListMessages", conversationId=conversation, limit=100)
        at = datetime.fromisoformat(listed["messages"][-1]["createdAt"])
        return abs((at - datetime.now(UTC)).total_seconds() - seconds) < SKEW

    clock.shift(seconds)
    try:
        await wait_until(is_shifted, 20, "the clocks to jump")
        yield
    finally:
        clock.shift(0)
