"""Conversations come and go by the hundred, and nothing of them stays."""

import asyncio
import uuid
from collections import Counter
from collections.abc import Callable

from tests.requirements import requirement
from tests.support.leftovers import left_over
from tests.support.patience import until_ok
from tests.support.platform import Client, Platform
from tests.support.wait import wait_until

WORKERS = 8
ROUNDS = 12


@requirement("conversations:create", "conversations:delete", "conversations:list")
async def test_conversations_that_come_and_go_leave_nothing_behind(
    platform: Platform, alice: Client, figure: Callable[..., None]
) -> None:
    gone: list[str] = []

    async def worker() -> None:
        for _ in range(ROUNDS):
            key = {"idempotency-key": uuid.uuid4().hex}
            made = (await until_ok(alice, "CreateConversation", key))["conversationId"]
            await until_ok(alice, "AppendMessage", key, conversationId=made, text="here")
            await until_ok(alice, "DeleteConversation", key, conversationId=made)
            gone.append(made)

    began = asyncio.get_running_loop().time()
    await asyncio.gather(*(worker() for _ in range(WORKERS)))
    seconds = asyncio.get_running_loop().time() - began
    figure(figure="create, append, delete", at_once=WORKERS, per_s=round(len(gone) / seconds, 1))
    assert len(set(gone)) == WORKERS * ROUNDS
    assert (await until_ok(alice, "ListConversations"))["conversations"] == []

    async def nothing() -> bool:
        return not await left_over(platform, gone)

    try:
        await wait_until(nothing, 60, "the stores to forget them", every=0.5)
    except AssertionError:
        assert await left_over(platform, gone) == Counter()
