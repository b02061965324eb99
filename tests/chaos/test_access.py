"""Without OpenFGA, stopped or frozen, access is refused."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from tests.chaos.faults import frozen, halted
from tests.requirements import requirement
from tests.support.platform import Client, Platform
from tests.support.retries import until_ok
from tests.support.wait import wait_until


@requirement("access:fail-closed")
@pytest.mark.parametrize("fault", [halted, frozen])
async def test_access_is_unavailable_while_openfga_is_down(
    platform: Platform,
    alice: Client,
    fault: Callable[[Platform, str], AbstractAsyncContextManager[None]],
) -> None:
    conversation = (await until_ok(alice, "CreateConversation"))["conversationId"]
    async with platform.client("mallory") as mallory:
        async with fault(platform, "openfga"):

            async def is_unavailable() -> bool:
                answer = await alice.call("GetConversation", conversationId=conversation)
                assert answer.status in (200, 503), answer  # 200 while the check is cached
                return answer.code == "UNAVAILABLE"

            await wait_until(is_unavailable, 10, "the cached check to expire")
            calls = [
                mallory.call("GetConversation", conversationId=conversation) for _ in range(20)
            ]
            assert {answer.code for answer in await asyncio.gather(*calls)} == {"UNAVAILABLE"}
        found = await until_ok(alice, "GetConversation", conversationId=conversation)
        assert found["conversationId"] == conversation
        answer = await mallory.call("GetConversation", conversationId=conversation)
        assert answer.code == "NOT_FOUND"
