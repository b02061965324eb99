"""Signatures of Firebase tokens: RS256 by a key of the certificate set only."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, cast

from joserfc import jws, jwt
from joserfc.errors import JoseError

from services.auth.adapters.firebase.certificates import Certificates
from services.auth.domain.firebase import FirebaseTokenKind, refused
from services.auth.ports.firebase import SignatureCheck
from services.auth.settings import FirebaseSettings
from services.kit.outbound.client import OutboundTimeouts, open_outbound

ALGORITHM: Final = "RS256"
CERTIFICATE_TIMEOUTS: Final = OutboundTimeouts(
    connect=3.0, first_byte=5.0, between_chunks=5.0, total=8.0
)
MAX_CERTIFICATES_BYTES: Final = 256 * 1024


class GoogleSignatures:
    """`SignatureCheck` by Google's certificates. Key URLs in tokens are ignored."""

    def __init__(self, certificates: Mapping[FirebaseTokenKind, Certificates]) -> None:
        self._certificates = certificates

    async def claims(self, kind: FirebaseTokenKind, token: str) -> Mapping[str, Any]:
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
    """`SignatureCheck` of the Auth emulator, whose tokens are unsigned: never in production."""

    async def claims(self, kind: FirebaseTokenKind, token: str) -> Mapping[str, Any]:
        unsigned = _unverified(kind, token)
        try:
            claims = json.loads(unsigned.payload)
        except (ValueError, RecursionError) as error:
            raise refused(kind, "is malformed") from error
        if unsigned.headers().get("alg") != "none" or not isinstance(claims, dict):
            raise refused(kind, "is not one of the emulator")
        return cast(dict[str, Any], claims)


@asynccontextmanager
async def open_signatures(settings: FirebaseSettings) -> AsyncIterator[SignatureCheck]:
    """The signature check of the emulator or of Google."""
    if settings.emulator_host:
        yield EmulatedSignatures()
        return
    urls = {
        FirebaseTokenKind.ID_TOKEN: settings.certs_url,
        FirebaseTokenKind.SESSION_COOKIE: settings.cookie_certs_url,
    }
    async with open_outbound(
        CERTIFICATE_TIMEOUTS, trusted=urls.values(), max_body_bytes=MAX_CERTIFICATES_BYTES
    ) as client:
        yield GoogleSignatures({kind: Certificates(client, url) for kind, url in urls.items()})


def _unverified(kind: FirebaseTokenKind, token: str) -> jws.CompactSignature:
    try:
        return jws.extract_compact(token.encode())  # limits the length of each part
    except (JoseError, ValueError, TypeError) as error:
        raise refused(kind, "is malformed") from error
