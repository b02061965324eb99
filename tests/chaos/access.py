"""What the access tests look at: facts in OpenFGA's own database, and the account service."""

import uuid
from dataclasses import dataclass
from typing import Any

import aiohttp
import asyncpg

from services.contracts.auth.accounts import ACCOUNT_SERVICE
from tests.support.patience import PASSING
from tests.support.platform import Client, Platform
from tests.support.wait import wait_until


def key() -> dict[str, str]:
    """An Idempotency-Key of its own."""
    return {"idempotency-key": uuid.uuid4().hex}


@dataclass
class Facts:
    """What OpenFGA has stored, read behind its back."""

    connection: asyncpg.Connection

    @classmethod
    async def of(cls, platform: Platform) -> "Facts":
        """Connect to the platform's OpenFGA database."""
        return cls(await asyncpg.connect(platform.stack.database_url(), database="openfga"))

    async def about(self, object_id: str) -> int:
        """How many facts name an object."""
        count = "SELECT count(*) FROM tuple WHERE object_id = $1"
        return await self.connection.fetchval(count, object_id) or 0

    async def of_user(self, user_id: str) -> int:
        """How many facts name a user."""
        count = "SELECT count(*) FROM tuple WHERE _user = $1"
        return await self.connection.fetchval(count, f"user:{user_id}") or 0

    async def close(self) -> None:
        """Disconnect."""
        await self.connection.close()


async def receipt(client: Client, deletion_id: str, seconds: float = 90) -> dict[str, Any]:
    """The receipt once it is complete."""

    async def complete() -> dict[str, Any] | None:
        try:
            answer = await client.call_of(
                ACCOUNT_SERVICE, "GetAccountDeletion", deletionId=deletion_id
            )
        except (aiohttp.ClientError, OSError):
            return None
        if answer.status in PASSING:
            return None
        assert answer.status == 200, answer
        return answer.body if answer.body["status"] == "COMPLETED" else None

    return await wait_until(complete, seconds, "the erasure to be complete", every=0.25)
