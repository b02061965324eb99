"""Signing keys over time. Which key signs, and which still verify, follows from when each begins to sign."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import BaseModel

PUBLISHED_AHEAD: Final = timedelta(seconds=15)
"""How long a new key is public before it signs: longer than an edge waits between two looks at the key set."""
LONGEST_TOKEN: Final = timedelta(days=7)


class SigningKey(BaseModel):
    """A key pair; `public` is its JWK, `sealed` the encrypted private key."""

    kid: str
    public: dict[str, Any]
    sealed: bytes
    signs_from: datetime


def signing_key(keys: Sequence[SigningKey], at: datetime) -> SigningKey | None:
    """The key that signs: the newest of those that have begun."""
    begun = [key for key in keys if key.signs_from <= at]
    return max(begun, key=_order, default=None)


def verifying_keys(keys: Sequence[SigningKey], at: datetime) -> list[SigningKey]:
    """The keys to publish, newest first: what will sign, what signs, and what signed tokens that may still live."""
    ordered = sorted(keys, key=_order, reverse=True)
    return [
        key
        for key, successor in zip(ordered, [None, *ordered], strict=False)
        if successor is None or at < successor.signs_from + LONGEST_TOKEN
    ]


def needs_successor(keys: Sequence[SigningKey], at: datetime, max_age: timedelta) -> bool:
    """Whether a new key is due: there is none, or the newest has signed for long enough."""
    newest = max(keys, key=_order, default=None)
    return newest is None or newest.signs_from + max_age <= at


def successor_begins(keys: Sequence[SigningKey], at: datetime) -> datetime | None:
    """When a key that is made now begins to sign: at once where it is the first; None where one is on its way."""
    if not keys:
        return at
    if any(key.signs_from > at for key in keys):
        return None
    return at + PUBLISHED_AHEAD


def _order(key: SigningKey) -> tuple[datetime, str]:
    return key.signs_from, key.kid
