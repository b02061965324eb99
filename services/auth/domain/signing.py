"""Rules of signing keys. `signs_from` of each key decides which key signs and which still verify."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import BaseModel

PUBLISHED_AHEAD: Final = timedelta(seconds=15)
"""How long a new key is public before it signs: longer than the edge's refresh interval of the JWKS."""
LONGEST_TOKEN: Final = timedelta(days=7)


class SigningKey(BaseModel):
    """A key pair; `public` is its JWK, `sealed` the encrypted private key."""

    kid: str
    public: dict[str, Any]
    sealed: bytes
    signs_from: datetime


def signing_key(keys: Sequence[SigningKey], at: datetime) -> SigningKey | None:
    """The newest key that may sign already."""
    usable = [key for key in keys if key.signs_from <= at]
    return max(usable, key=_order, default=None)


def verifying_keys(keys: Sequence[SigningKey], at: datetime) -> list[SigningKey]:
    """The keys to publish, newest first: future, current, and those whose tokens may not have expired."""
    ordered = sorted(keys, key=_order, reverse=True)
    return [
        key
        for key, successor in zip(ordered, [None, *ordered], strict=False)
        if successor is None or at < successor.signs_from + LONGEST_TOKEN
    ]


def needs_successor(keys: Sequence[SigningKey], at: datetime, max_age: timedelta) -> bool:
    """Whether there is no key, or the newest has signed for `max_age`."""
    newest = max(keys, key=_order, default=None)
    return newest is None or newest.signs_from + max_age <= at


def successor_begins(keys: Sequence[SigningKey], at: datetime) -> datetime | None:
    """When a key made now may sign: the first at once; None if a future key exists already."""
    if not keys:
        return at
    if any(key.signs_from > at for key in keys):
        return None
    return at + PUBLISHED_AHEAD


def _order(key: SigningKey) -> tuple[datetime, str]:
    return key.signs_from, key.kid
