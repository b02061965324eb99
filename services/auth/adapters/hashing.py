"""Secrets: drawn at random, and kept as keyed hashes."""

import hmac
import secrets
from hashlib import sha256
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from services.auth.domain.keys import BASE62

API_KEYS: Final = b"yocaso auth api keys"
REFRESH_TOKENS: Final = b"yocaso auth refresh tokens"
SHARE_LINKS: Final = b"yocaso auth share links"


def derived_key(secret: str, purpose: bytes) -> bytes:
    """A key of 32 bytes for one purpose, from the secret that is behind them all."""
    return HKDF(SHA256(), length=32, salt=None, info=purpose).derive(secret.encode())


class KeyedHash:
    """HMAC-SHA-256 under a key that is derived for one purpose: a stolen database alone tests no guess."""

    def __init__(self, secret: str, purpose: bytes) -> None:
        self._key = derived_key(secret, purpose)

    def __call__(self, text: str) -> bytes:
        """The hash of a text."""
        return hmac.digest(self._key, text.encode(), sha256)


def random_base62(length: int) -> str:
    """So many random characters."""
    return "".join(secrets.choice(BASE62) for _ in range(length))
