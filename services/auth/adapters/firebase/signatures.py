"""Firebase's tokens: RS256 by a key of the certificate set, and nothing else."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final, cast

from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.util import urlsafe_b64decode, urlsafe_b64encode

from services.auth.adapters.firebase.certificates import Certificates
from services.auth.domain.firebase import FirebaseTokenKind, refused

ALGORITHM: Final = "RS256"
MAX_TOKEN_LENGTH: Final = 8192

_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_UNSIGNED: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.")


class GoogleSignatures:
    """`SignatureCheck` by Google's certificates; the token itself never says where a key is found."""

    def __init__(self, certificates: Mapping[FirebaseTokenKind, Certificates]) -> None:
        self._certificates = certificates

    async def claims(self, kind: FirebaseTokenKind, token: str) -> Mapping[str, Any]:
        """What a rightly signed token says."""
        header = _header(kind, token)
        kid = header.get("kid")
        if header.get("alg") != ALGORITHM or not isinstance(kid, str):
            raise refused(kind, "is not signed as Firebase signs")
        key = await self._certificates[kind].key(kid)
        if key is None:
            raise refused(kind, "is signed by an unknown key")
        try:
            return jwt.decode(token, key, algorithms=[ALGORITHM]).claims
        except (JoseError, ValueError, RecursionError) as error:
            raise refused(kind, "has no valid signature") from error


class EmulatedSignatures:
    """`SignatureCheck` of the Auth emulator, which signs nothing: for a laptop only."""

    async def claims(self, kind: FirebaseTokenKind, token: str) -> Mapping[str, Any]:
        """What an unsigned token says."""
        if len(token) > MAX_TOKEN_LENGTH or not _UNSIGNED.fullmatch(token):
            raise refused(kind, "is not one of the emulator")
        try:
            unsigned = jws.extract_compact(token.encode())
            claims = json.loads(unsigned.payload)
        except (JoseError, ValueError, TypeError, RecursionError) as error:
            raise refused(kind, "is malformed") from error
        if unsigned.headers().get("alg") != "none" or not isinstance(claims, dict):
            raise refused(kind, "is not one of the emulator")
        return cast(dict[str, Any], claims)


def _header(kind: FirebaseTokenKind, token: str) -> Mapping[str, Any]:
    malformed = refused(kind, "is malformed")
    if len(token) > MAX_TOKEN_LENGTH or not _COMPACT.fullmatch(token):
        raise malformed
    signature = token.rpartition(".")[2].encode()
    try:
        # One signature has one spelling: the last character has bits that no decoder reads.
        if urlsafe_b64encode(urlsafe_b64decode(signature)) != signature:
            raise malformed
        return jws.extract_compact(token.encode()).headers()
    except (JoseError, ValueError, TypeError, RecursionError) as error:
        raise malformed from error
