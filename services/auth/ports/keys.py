"""Storage of API keys, and the counter of their calls."""

from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from services.auth.domain.keys import Key
from services.contracts.auth.keys import KeyRateLimit

if TYPE_CHECKING:
    from services.kit.storage.db import Transaction

KeyAndSpend = tuple[Key, float]
"""A key, and what was charged to it in the current period of its budget."""


class ApiKeys(Protocol):
    """API keys and their charges."""

    async def add(self, transaction: "Transaction", key: Key) -> None:
        """Insert a key."""
        ...

    async def find(self, start: str, at: datetime) -> KeyAndSpend | None:
        """The key whose current or previous secret has this start."""
        ...

    async def get(self, key_id: str, at: datetime) -> KeyAndSpend | None:
        """The key, or None."""
        ...

    async def lock(
        self, transaction: "Transaction", key_id: str, at: datetime
    ) -> KeyAndSpend | None:
        """The key, with its row locked until the transaction ends."""
        ...

    async def save(self, transaction: "Transaction", key: Key) -> None:
        """Update a key."""
        ...

    async def page(
        self,
        user_id: str,
        organization_id: str | None,
        at: datetime,
        *,
        limit: int,
        before: int | None,
    ) -> tuple[list[KeyAndSpend], int | None]:
        """The newest keys before a position, and the position of the next page."""
        ...

    async def record_use(self, key_id: str, at: datetime) -> None:
        """Set `last_used_at`, unless another replica has just set it."""
        ...

    async def charge(self, key_id: str, reference: str, amount: float, at: datetime) -> None:
        """Book a charge, once per reference; nothing for a key that does not exist."""
        ...

    async def purge(self, at: datetime) -> None:
        """Delete references that are too old to be repeated."""
        ...


class CallCounter(Protocol):
    """Counts the calls of keys across all replicas."""

    async def count(self, key_id: str, limit: KeyRateLimit, cost: int) -> int | None:
        """Count `cost` calls; the calls that remain, or None past the limit."""
        ...
