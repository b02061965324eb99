"""Calls of a client that retries transient failures."""

from collections.abc import Mapping
from typing import Any, Final

import aiohttp

from services.contracts.llm.conversations import CONVERSATION_SERVICE
from services.kit.contract import RpcService
from tests.support.platform import Client
from tests.support.wait import wait_until

RECOVERY_SECONDS: Final = 60.0
"""Seconds after the last fault within which calls succeed and turns end."""
RETRYABLE_STATUSES: Final = frozenset({408, 409, 429, 499, 502, 503, 504})
"""Not 500: INTERNAL is a bug, whatever was killed."""


async def until_ok(
    client: Client,
    method: str,
    headers: Mapping[str, str] | None = None,
    seconds: float = RECOVERY_SECONDS,
    every: float = 0.1,
    **body: Any,
) -> Any:
    """Repeat a call of the conversation service while it fails transiently; any other failure fails the test."""
    return await until_ok_of(client, CONVERSATION_SERVICE, method, headers, seconds, every, **body)


async def until_ok_of(
    client: Client,
    service: RpcService,
    method: str,
    headers: Mapping[str, str] | None = None,
    seconds: float = RECOVERY_SECONDS,
    every: float = 0.1,
    **body: Any,
) -> Any:
    """The same for a method of any service."""

    async def attempt() -> dict[str, Any] | None:
        try:
            answer = await client.call_of(service, method, headers, **body)
        except (aiohttp.ClientError, OSError):
            return None
        if answer.status in RETRYABLE_STATUSES:
            return None
        assert answer.status == 200, answer
        return {"body": answer.body}

    found = await wait_until(attempt, seconds, f"{method} to succeed", every=every)
    return found["body"]
