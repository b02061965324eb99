"""Firebase's tokens: RS256 by a key of the certificate set, and nothing else."""

import json
from collections.abc import Mapping
from typing import Any, Final, cast

from joserfc import jws, jwt
from joserfc.errors import JoseError

from services.auth.adapters.firebase.certificates import Certificates
from services.auth.domain.firebase import FirebaseTokenKind, refused

ALGORITHM: Final = "RS256"


class GoogleSignatures:
    """`SignatureCheck` by Google's certificates; the token itself never says where a key is found."""

    def __init__(self, certificates: Mapping[FirebaseTokenKind, Certificates]) -> None:
        self._certificates = certificates

    async def claims(self, kind: FirebaseTokenKind, token: str) -> Mapping[str, Any]:
        """What a rightly signed token says."""
        header = _unverified(kind, token).headers()
        kid = header.get("kid")
        if header.get("alg") != ALGORITHM or not isinstance(kid, str):
            raise refused(kind, "is not signed as Firebase signs")
        key = await self._certificates[kind].key(kid)
        if key is None:
            raise refused(kind, "is signed by an unknown key")
        try:
            return jwt.decode(token, key, algorithms=[ALGORITHM]).claims
        except (JoseError, ValueError) as error:
            raise refused(kind, "has no valid signature") from error


class EmulatedSignatures:
    """`SignatureCheck` of the Auth emulator, which signs nothing: for a laptop only."""

    async def claims(self, kind: FirebaseTokenKind, token: str) -> Mapping[str, Any]:
        """What an unsigned token says."""
        unsigned = _unverified(kind, token)
        try:
            claims = json.loads(unsigned.payload)
        except (ValueError, RecursionError) as error:
            raise refused(kind, "is malformed") from error
        if unsigned.headers().get("alg") != "none" or not isinstance(claims, dict):
            raise refused(kind, "is not one of the emulator")
        return cast(dict[str, Any], claims)


def _unverified(kind: FirebaseTokenKind, token: str) -> jws.CompactSignature:
    try:
        return jws.extract_compact(token.encode())  # bounds the length of each part
    except (JoseError, ValueError, TypeError) as error:
        raise refused(kind, "is malformed") from error
