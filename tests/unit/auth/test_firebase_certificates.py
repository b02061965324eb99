"""Google's certificates: kept while they count, fetched with restraint, and never doubted without cause."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Final

import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from joserfc.jwk import RSAKey

from services.auth.adapters.firebase.certificates import Certificates
from services.kit.errors import ErrorCode, RpcError
from services.kit.outbound.client import OutboundTimeouts, open_outbound
from tests.requirements import requirement
from tests.support.firebase import FirebaseServer
from tests.support.firebase.signing import self_signed

pytestmark = pytest.mark.loopback

PORT: Final = 21_921
MAX_AGE: Final = 3600.0
STORM: Final = 300


class MovedClock:
    """Seconds that stand still until they are moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
async def running() -> AsyncIterator[FirebaseServer]:
    async with FirebaseServer(PORT) as server:
        yield server


@pytest.fixture
def google(running: FirebaseServer) -> FirebaseServer:
    running.calls.clear()
    running.down.clear()
    running.certificates_body = None
    running.signers = running.signers[:1]
    running.cache_control = f"public, max-age={MAX_AGE:g}, must-revalidate"
    return running


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
async def client(google: FirebaseServer) -> AsyncIterator[httpx2.AsyncClient]:
    async with open_outbound(OutboundTimeouts(), trusted=[google.url]) as client:
        yield client


@pytest.fixture
def certificates(
    client: httpx2.AsyncClient, google: FirebaseServer, clock: MovedClock
) -> Certificates:
    return Certificates(client, f"{google.url}/certs", clock)


async def known(certificates: Certificates, kid: str) -> bool:
    return isinstance(await certificates.key(kid), RSAKey)


async def is_unavailable(certificates: Certificates, kid: str) -> bool:
    with pytest.raises(RpcError) as refused:
        await certificates.key(kid)
    return refused.value.code is ErrorCode.UNAVAILABLE


@requirement("access:firebase:keys")
async def test_fifty_sign_ins_at_once_fetch_once_and_the_set_is_kept(
    certificates: Certificates, google: FirebaseServer, clock: MovedClock
) -> None:
    kid = google.signers[0].kid
    assert all(await asyncio.gather(*(known(certificates, kid) for _ in range(50))))
    clock.now += MAX_AGE / 2 - 1
    assert await known(certificates, kid)
    assert google.calls["certificates"] == 1


@requirement("access:firebase:keys")
async def test_a_storm_of_unknown_key_ids_costs_a_fetch_a_minute(
    certificates: Certificates, google: FirebaseServer, clock: MovedClock
) -> None:
    for minute in range(3):
        answers = [known(certificates, f"unknown-{minute}-{n}") for n in range(STORM)]
        assert not any(await asyncio.gather(*answers))
        clock.now += 59
        assert not await known(certificates, "unknown")
        assert google.calls["certificates"] == minute + 1
        clock.now += 1


@requirement("access:firebase:keys")
async def test_a_new_key_is_found_and_the_old_one_counts_while_it_is_published(
    certificates: Certificates, google: FirebaseServer, clock: MovedClock
) -> None:
    old = google.signers[0].kid
    assert await known(certificates, old)
    new = google.rotate().kid
    assert not await known(certificates, new)  # the set was fetched a moment ago
    clock.now += 60
    assert await known(certificates, new)
    assert await known(certificates, old)
    google.signers = google.signers[1:]
    clock.now += MAX_AGE
    assert not await known(certificates, old)
    assert await known(certificates, new)


@requirement("access:firebase:keys")
async def test_while_google_is_down_the_set_serves_until_its_end_and_not_longer(
    certificates: Certificates, google: FirebaseServer, clock: MovedClock
) -> None:
    kid = google.signers[0].kid
    assert await known(certificates, kid)
    google.down = {"certificates"}
    clock.now += MAX_AGE - 1
    assert await known(certificates, kid)  # tried, failed, and served all the same
    assert google.calls["certificates"] == 2
    clock.now += 1
    assert await is_unavailable(certificates, kid)
    google.down = set()
    clock.now += 1
    assert await known(certificates, kid)


@requirement("access:firebase:keys")
async def test_without_a_set_nobody_is_let_in_and_google_is_not_pestered(
    certificates: Certificates, google: FirebaseServer, clock: MovedClock
) -> None:
    google.down = {"certificates"}
    kid = google.signers[0].kid
    answers = [is_unavailable(certificates, kid) for _ in range(STORM)]
    assert all(await asyncio.gather(*answers))
    assert google.calls["certificates"] == 1
    clock.now += 1
    assert await is_unavailable(certificates, kid)
    assert google.calls["certificates"] == 2


async def test_a_set_grown_old_is_fetched_anew_before_its_end(
    certificates: Certificates, google: FirebaseServer, clock: MovedClock
) -> None:
    kid = google.signers[0].kid
    assert await known(certificates, kid)
    clock.now += MAX_AGE / 2
    assert all(await asyncio.gather(*(known(certificates, kid) for _ in range(50))))
    assert google.calls["certificates"] == 2
    google.down = {"certificates"}
    clock.now += MAX_AGE - 1  # of the second set
    assert await known(certificates, kid)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"kid": 1}',
        b'{"kid": "no certificate"}',
        b"x" * 300_000,
        json.dumps({"kid": self_signed(generate_private_key(SECP256R1()))[1]}).encode(),
    ],
    ids=range(8),
)
async def test_nonsense_instead_of_certificates_changes_nothing(
    client: httpx2.AsyncClient, google: FirebaseServer, clock: MovedClock, body: bytes
) -> None:
    certificates = Certificates(client, f"{google.url}/certs", clock)
    kid = google.signers[0].kid
    google.certificates_body = body
    assert await is_unavailable(certificates, kid)
    google.certificates_body = None
    clock.now += 1
    assert await known(certificates, kid)
    google.certificates_body = body
    clock.now += MAX_AGE - 1
    assert await known(certificates, kid)


@pytest.mark.parametrize(
    ("cache_control", "lasts"),
    [
        ("public, max-age=7200", 7200),
        ("MAX-AGE=7200", 7200),
        ("max-age=1", 60),
        ("no-store, max-age=0", 60),
        ("public", 300),
        ("", 300),
        ("s-maxage=7200", 300),
        ("max-age=999999999", 86_400),
    ],
)
async def test_google_says_how_long_the_set_counts_within_sense(
    certificates: Certificates,
    google: FirebaseServer,
    clock: MovedClock,
    cache_control: str,
    lasts: int,
) -> None:
    google.cache_control = cache_control
    kid = google.signers[0].kid
    assert await known(certificates, kid)
    google.down = {"certificates"}
    clock.now += lasts - 0.5
    assert await known(certificates, kid)
    clock.now += 0.5
    clock.now += 1
    assert await is_unavailable(certificates, kid)
