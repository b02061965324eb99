"""A user's client that never gives up before the bound: keyed calls are repeated until their outcome is known."""

import asyncio
import random
import time
import uuid
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from tests.soak.ledger import GaveUp, Ledger
from tests.support.patience import PASSING
from tests.support.platform import Answer, Client

ATTEMPT_SECONDS: Final = 15.0
"""How long a unary call waits before it is made again."""
SEND_SECONDS: Final = 60.0
"""The same for a call that waits for a whole answer of the model."""


@dataclass
class Caller:
    """Calls in one user's name."""

    user: str
    client: Client
    ledger: Ledger
    source: random.Random = field(default_factory=random.Random)

    async def once(
        self, method: str, key: str | None = None, /, *, wait: float = ATTEMPT_SECONDS, **body: Any
    ) -> Answer | None:
        """One attempt; None where its outcome is unknown."""
        headers = {"idempotency-key": key} if key else None
        try:
            async with asyncio.timeout(wait):
                answer = await self.client.call(method, headers, **body)
        except (aiohttp.ClientError, OSError) as error:
            self.ledger.attempt(False, f"{method}: {type(error).__name__}")
            return None
        except ValueError as error:
            self.ledger.problem("a reply that is no JSON", f"{method}: {error}")
            return None
        known = answer.status < 500 and answer.status not in PASSING
        self.ledger.attempt(known, f"{method}: {answer.status} {answer.code}")
        if answer.status == 500:
            self.ledger.problem("500", f"{method} {body}: {answer.body}")
            return None
        return answer

    async def until_known(
        self, method: str, key: str | None = None, /, *, wait: float = ATTEMPT_SECONDS, **body: Any
    ) -> Answer:
        """Repeat until the answer is neither unknown nor one that may pass.

        Raises:
            GaveUp: it never came to that.
        """
        began, pause = time.monotonic(), 0.1
        last: Answer | None = None
        while True:
            last = await self.once(method, key, wait=wait, **body) or last
            if last is not None and last.status not in PASSING:
                return last
            if self.ledger.is_overdue(began):
                self.ledger.problem("a call that never came", f"{method} {key} {body}: {last}")
                raise GaveUp(method)
            await asyncio.sleep(pause * self.source.uniform(0.5, 1))
            pause = min(pause * 2, 2)

    async def must(self, method: str, key: str | None = None, /, **body: Any) -> Any:
        """Repeat until it succeeds; its response.

        Raises:
            GaveUp: it was refused for good.
        """
        answer = await self.until_known(method, key, **body)
        if answer.status != 200:
            detail = f"{method} {key} {body}: {answer.status} {answer.body}"
            self.ledger.problem(f"{method} refused: {answer.status} {answer.code}", detail)
            raise GaveUp(method)
        return answer.body

    async def pages(self, method: str, field_name: str, **body: Any) -> list[dict[str, Any]]:
        """A whole list."""
        rows: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while True:
            page = await self.must(method, limit=100, **body, **cursor)
            rows += page[field_name]
            if not page.get("nextCursor"):
                return rows
            cursor = {"cursor": page["nextCursor"]}


def new_key() -> str:
    """An Idempotency-Key of its own."""
    return uuid.uuid4().hex
