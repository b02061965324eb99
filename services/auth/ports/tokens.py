"""Storage of signing keys, sessions and token revocations; token signatures."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from services.auth.domain.sessions import Session
from services.auth.domain.signing import SigningKey
from services.contracts.auth.tokens import Revocation

if TYPE_CHECKING:
    from services.kit.storage.db import Transaction


class Revocations(Protocol):
    """Revoked tokens, by claim."""

    async def revoke(
        self, claim: str, value: str, *, transaction: "Transaction | None" = None
    ) -> None:
        """Revoke the tokens with this claim (`sid`, `key_id`, `sub`) and end their sessions; repeatable."""
        ...

    async def all(self) -> list[Revocation]:
        """Revocations of tokens that may not have expired."""
        ...

    async def purge(self) -> None:
        """Delete revocations whose last token has expired."""
        ...


class Sessions(Protocol):
    """Sign-ins."""

    async def add(self, transaction: "Transaction", session: Session) -> None:
        """Insert a session."""
        ...

    async def get(self, sid: str) -> Session | None:
        """The session, or None."""
        ...

    async def lock(self, transaction: "Transaction", sid: str) -> Session | None:
        """The session, with its row locked until the transaction ends."""
        ...

    async def rotate(self, transaction: "Transaction", session: Session) -> None:
        """Save the digests of a refreshed session."""
        ...

    async def purge(self, at: datetime) -> None:
        """Delete expired sessions."""
        ...


class SigningKeys(Protocol):
    """Key pairs; the private parts are encrypted."""

    async def all(self) -> list[SigningKey]:
        """Every key."""
        ...

    async def add(self, decide: Callable[[Sequence[SigningKey]], SigningKey | None]) -> None:
        """Add the key that `decide` makes from the existing ones, if any; one replica at a time."""
        ...


class TokenSigner(Protocol):
    """Makes key pairs, signs and verifies tokens."""

    def make_key(self, signs_from: datetime) -> SigningKey:
        """A new key pair, its private part encrypted."""
        ...

    def sign(self, key: SigningKey, claims: dict[str, Any]) -> str:
        """A signed token."""
        ...

    def verify(self, keys: Sequence[SigningKey], token: str) -> dict[str, Any] | None:
        """The claims of a token that one of these keys signed, expired or not; None for any other."""
        ...
