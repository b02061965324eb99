"""A user's client, which repeats keyed calls until their outcome is known."""

import asyncio
import random
import time
import uuid
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from tests.soak.ledger import Abandoned, Ledger
from tests.support.platform import Answer, Client
from tests.support.retries import RETRYABLE_STATUSES

ATTEMPT_SECONDS: Final = 15.0
"""Timeout of an attempt of a unary call."""
SEND_SECONDS: Final = 60.0
"""Timeout of an attempt of SendMessage, which waits for the answer."""


@dataclass
class Caller:
    """Calls of one user."""

    user: str
    client: Client
    ledger: Ledger
    source: random.Random = field(default_factory=random.Random)

    async def once(
        self, method: str, key: str | None = None, /, *, wait: float = ATTEMPT_SECONDS, **body: Any
    ) -> Answer | None:
        """One attempt; None if its outcome is unknown."""
        headers = {"idempotency-key": key} if key else None
        try:
            async with asyncio.timeout(wait):
                answer = await self.client.call(method, headers, **body)
        except (aiohttp.ClientError, OSError) as error:
            self.ledger.attempt(False, f"{method}: {type(error).__name__}")
            return None
        except ValueError as error:
            self.ledger.problem("a reply that is not JSON", f"{method}: {error}")
            return None
        known = answer.status < 500 and answer.status not in RETRYABLE_STATUSES
        self.ledger.attempt(known, f"{method}: {answer.status} {answer.code}")
        if answer.status == 500:
            self.ledger.problem("500", f"{method} {body}: {answer.body}")
            return None
        return answer

    async def until_known(
        self, method: str, key: str | None = None, /, *, wait: float = ATTEMPT_SECONDS, **body: Any
    ) -> Answer:
        """Repeat while the outcome is unknown or transient.

        Raises:
            Abandoned: still so after `RECOVERY_SECONDS` without faults.
        """
        began, pause = time.monotonic(), 0.1
        last: Answer | None = None
        while True:
            last = await self.once(method, key, wait=wait, **body) or last
            if last is not None and last.status not in RETRYABLE_STATUSES:
                return last
            if self.ledger.is_overdue(began):
                self.ledger.problem("a call that never succeeded", f"{method} {key} {body}: {last}")
                raise Abandoned(method)
            await asyncio.sleep(pause * self.source.uniform(0.5, 1))
            pause = min(pause * 2, 2)

    async def must(self, method: str, key: str | None = None, /, **body: Any) -> Any:
        """Repeat until it succeeds.

        Raises:
            Abandoned: it was refused.
        """
        answer = await self.until_known(method, key, **body)
        if answer.status != 200:
            detail = f"{method} {key} {body}: {answer.status} {answer.body}"
            self.ledger.problem(f"{method} refused: {answer.status} {answer.code}", detail)
            raise Abandoned(method)
        return answer.body

    async def pages(self, method: str, field_name: str, **body: Any) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while True:
            page = await self.must(method, limit=100, **body, **cursor)
            rows += page[field_name]
            if not page.get("nextCursor"):
                return rows
            cursor = {"cursor": page["nextCursor"]}


def new_key() -> str:
    return uuid.uuid4().hex
