"""Random secrets, and their keyed hashes."""

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
ERASED_USERS: Final = b"yocaso auth erased users"


def derived_key(secret: str, purpose: bytes) -> bytes:
    """Derive a 32-byte key for one purpose from AUTH_KEY_SECRET."""
    return HKDF(SHA256(), length=32, salt=None, info=purpose).derive(secret.encode())


class KeyedHash:
    """HMAC-SHA-256 with a derived key: guesses cannot be tested on a stolen database."""

    def __init__(self, secret: str, purpose: bytes) -> None:
        self._key = derived_key(secret, purpose)

    def __call__(self, text: str) -> bytes:
        return hmac.digest(self._key, text.encode(), sha256)


def random_base62(length: int) -> str:
    return "".join(secrets.choice(BASE62) for _ in range(length))
