"""What this app needs of the outside world."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Protocol

from services.auth.domain.signing import SigningKey


class KeyStore(Protocol):
    """Keeps signing keys."""

    async def all(self) -> list[SigningKey]:
        """Every key."""
        ...

    async def add(self, decide: Callable[[Sequence[SigningKey]], SigningKey | None]) -> None:
        """Add the key that `decide` makes from those there are, if any; one decision at a time, whoever asks."""
        ...


class KeyForge(Protocol):
    """Makes keys and signs with them."""

    def make(self, signs_from: datetime) -> SigningKey:
        """A new key pair, its private part encrypted."""
        ...

    def sign(self, key: SigningKey, claims: dict[str, Any]) -> str:
        """A signed token."""
        ...

    def verify(self, keys: Sequence[SigningKey], token: str) -> dict[str, Any] | None:
        """What a token says that one of these keys signed, whether or not it is over; None for any other."""
        ...
