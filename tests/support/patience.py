"""Calls as a well-behaved client makes them: what may pass is tried again."""

from collections.abc import Mapping
from typing import Any, Final

import aiohttp

from tests.support.platform import Client
from tests.support.wait import wait_until

HEAL_SECONDS: Final = 60.0
"""The bound of I11: by then every turn has ended and calls are answered."""
PASSING: Final = frozenset({408, 409, 429, 499, 502, 503, 504})
"""What a client tries again after; 500 is a bug, whatever was killed."""


async def until_ok(
    client: Client,
    method: str,
    headers: Mapping[str, str] | None = None,
    seconds: float = HEAL_SECONDS,
    every: float = 0.1,
    **body: Any,
) -> Any:
    """Call as a client does that meets restarts: repeat while the answer says that it may pass; the response."""

    async def attempt() -> dict[str, Any] | None:
        try:
            answer = await client.call(method, headers, **body)
        except (aiohttp.ClientError, OSError):
            return None
        if answer.status in PASSING:
            return None
        assert answer.status == 200, answer
        return {"body": answer.body}

    found = await wait_until(attempt, seconds, f"{method} to succeed", every=every)
    return found["body"]
