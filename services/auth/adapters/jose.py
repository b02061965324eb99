"""RS256 signatures by joserfc; private keys are encrypted by AES-256-GCM."""

import json
import secrets
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, RSAKey

from services.auth.adapters.hashing import derived_key
from services.auth.domain.signing import SigningKey

KEY_BITS: Final = 2048
NONCE_BYTES: Final = 12
MAX_OPENED: Final = 4
ALGORITHM: Final = "RS256"


class JoseTokenSigner:
    """`TokenSigner`. The kid is authenticated with each encrypted key: it does not open in another row."""

    def __init__(self, secret: str) -> None:
        self._cipher = AESGCM(derived_key(secret, b"yocaso auth signing keys"))
        # Decrypting and parsing a key takes a hundred times as long as a signature.
        self._opened = lru_cache(MAX_OPENED)(self._open)

    def make_key(self, signs_from: datetime) -> SigningKey:
        kid = secrets.token_hex(8)
        key = RSAKey.generate_key(KEY_BITS, {"kid": kid, "use": "sig", "alg": ALGORITHM})
        nonce = secrets.token_bytes(NONCE_BYTES)
        private = json.dumps(key.as_dict(private=True)).encode()
        sealed = nonce + self._cipher.encrypt(nonce, private, kid.encode())
        public: dict[str, Any] = dict(key.as_dict(private=False))
        return SigningKey(kid=kid, public=public, sealed=sealed, signs_from=signs_from)

    def sign(self, key: SigningKey, claims: dict[str, Any]) -> str:
        private = self._opened(key.kid, key.sealed)
        return jwt.encode({"alg": ALGORITHM, "kid": key.kid, "typ": "JWT"}, claims, private)

    def verify(self, keys: Sequence[SigningKey], token: str) -> dict[str, Any] | None:
        ours = KeySet([RSAKey.import_key(key.public) for key in keys])
        try:
            return dict(jwt.decode(token, ours, algorithms=[ALGORITHM]).claims)
        except (JoseError, ValueError):
            return None

    def _open(self, kid: str, sealed: bytes) -> RSAKey:
        nonce, body = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
        return RSAKey.import_key(json.loads(self._cipher.decrypt(nonce, body, kid.encode())))
