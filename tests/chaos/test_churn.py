"""Conversations are created and deleted by the hundred, and the stores keep no data of them."""

import asyncio
from collections import Counter
from collections.abc import Callable

from tests.requirements import requirement
from tests.support.platform import Client, Platform, idempotency_key
from tests.support.residual_data import residual_rows
from tests.support.retries import until_ok
from tests.support.wait import wait_until

WORKERS = 8
ROUNDS = 12


@requirement("conversations:create", "conversations:delete", "conversations:list")
async def test_deleted_conversations_leave_no_data_in_any_store(
    platform: Platform, alice: Client, figure: Callable[..., None]
) -> None:
    gone: list[str] = []

    async def worker() -> None:
        for _ in range(ROUNDS):
            key = idempotency_key()
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

    async def is_empty() -> bool:
        return not await residual_rows(platform, gone)

    try:
        await wait_until(is_empty, 60, "the stores to be empty", every=0.5)
    except AssertionError:
        assert await residual_rows(platform, gone) == Counter()
