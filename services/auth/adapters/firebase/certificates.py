"""Google's signing certificates: cached as its headers say, with bounded refetches."""

import asyncio
import re
import time
from collections.abc import Callable
from typing import Final

import httpx2
import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_pem_x509_certificate
from joserfc.jwk import RSAKey
from pydantic import TypeAdapter, ValidationError

from services.kit.errors import ErrorCode, RpcError

BETWEEN_FETCHES: Final = 60.0
"""Seconds between fetches for unknown key ids, which callers choose, and for an ageing cache."""
BETWEEN_FAILURES: Final = 1.0
"""Seconds between fetches without a valid cache."""
DEFAULT_AGE: Final = 300.0
LONGEST_AGE: Final = 86_400.0

_KEY_SET: Final = TypeAdapter(dict[str, str])
_MAX_AGE: Final = re.compile(r"(?:^|[\s,])max-age=\"?(\d{1,9})")

log = structlog.get_logger()


class Certificates:
    """One set of certificates, by key id. It is refetched on use after half of its lifetime."""

    def __init__(
        self, client: httpx2.AsyncClient, url: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._url = url
        self._clock = clock
        self._fetching = asyncio.Lock()
        self._keys: dict[str, RSAKey] = {}
        self._aging_at = self._ends_at = float("-inf")
        self._tried_at = float("-inf")

    async def key(self, kid: str) -> RSAKey | None:
        """The key with this id, or None. UNAVAILABLE if the set has expired and cannot be fetched."""
        if self._clock() >= self._ends_at:
            await self._fetch_required()
        elif kid not in self._keys or self._clock() >= self._aging_at:
            await self._fetch_optional()
        return self._keys.get(kid)

    async def _fetch_required(self) -> None:
        async with self._fetching:
            if self._clock() < self._ends_at:
                return  # a concurrent call has fetched
            if self._clock() < self._tried_at + BETWEEN_FAILURES or not await self._fetch():
                raise RpcError(
                    ErrorCode.UNAVAILABLE, "Firebase's keys cannot be fetched; try again."
                )

    async def _fetch_optional(self) -> None:
        if self._clock() < self._tried_at + BETWEEN_FETCHES:
            return
        async with self._fetching:
            if self._clock() >= self._tried_at + BETWEEN_FETCHES:
                await self._fetch()

    async def _fetch(self) -> bool:
        self._tried_at = self._clock()
        try:
            response = await self._client.get(self._url)
            response.raise_for_status()
            keys = _parse(response.content)
        except (httpx2.HTTPError, ValueError) as error:
            log.warning("firebase.certificates_not_fetched", error=type(error).__name__)
            return False
        age = _age(response.headers)
        self._keys = keys
        self._aging_at, self._ends_at = self._tried_at + age / 2, self._tried_at + age
        return True


def _parse(body: bytes) -> dict[str, RSAKey]:
    try:
        pems = _KEY_SET.validate_json(body)
    except ValidationError as error:
        raise ValueError("not a set of certificates") from error
    keys = {kid: _key(pem) for kid, pem in pems.items()}
    if not keys:
        raise ValueError("an empty set of certificates")
    return keys


def _key(pem: str) -> RSAKey:
    public = load_pem_x509_certificate(pem.encode()).public_key()
    if not isinstance(public, RSAPublicKey):
        raise ValueError("a certificate of another kind of key")
    return RSAKey.import_key(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def _age(headers: httpx2.Headers) -> float:
    """The lifetime of the set: its `max-age` less its `Age`, within bounds."""
    found = _MAX_AGE.search(headers.get("cache-control", "").lower())
    if found is None:
        return DEFAULT_AGE
    spent = headers.get("age", "0")
    left = float(found[1]) - (float(spent) if spent.isdecimal() else 0.0)
    return min(max(left, BETWEEN_FETCHES), LONGEST_AGE)
