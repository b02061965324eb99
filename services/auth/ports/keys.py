"""Where API keys are kept and counted."""

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from services.auth.domain.keys import Key, KeyChange
from services.contracts.auth.keys import KeyRateLimit


class ApiKeys(Protocol):
    """API keys, and what was spent with each in its budget's period."""

    async def add(self, key: Key, *, actor: str) -> None:
        """Add a key, with the fact that it is owned and an event, in one transaction."""
        ...

    async def find(self, start: str, at: datetime) -> tuple[Key, float] | None:
        """The key with a secret that begins like this."""
        ...

    async def get(self, key_id: str, at: datetime) -> tuple[Key, float] | None:
        """A key by its id."""
        ...

    async def page(
        self,
        user_id: str,
        organization_id: str | None,
        at: datetime,
        *,
        limit: int,
        before: int | None,
    ) -> tuple[list[tuple[Key, float]], int | None]:
        """The newest keys of a user or an organization after a position, and where the next page begins."""
        ...

    async def change(
        self, key_id: str, decide: Callable[[Key], KeyChange | None], *, actor: str, at: datetime
    ) -> tuple[Key, float] | None:
        """Change a key as `decide` says, one change at a time; None where there is no such key."""
        ...

    async def used(self, key_id: str, at: datetime) -> None:
        """Note a use, unless one was noted a moment ago."""
        ...

    async def charge(self, key_id: str, reference: str, amount: float, at: datetime) -> None:
        """Book a cost; once per reference, and nothing where the key is no more."""
        ...

    async def purge(self, at: datetime) -> None:
        """Forget references that nobody repeats any more."""
        ...


class CallCounter(Protocol):
    """Counts the calls of keys, for all replicas together."""

    async def count(self, key_id: str, limit: KeyRateLimit, cost: int) -> int | None:
        """The calls that remain after `cost` more; None where they are too many, and then nothing is counted."""
        ...
