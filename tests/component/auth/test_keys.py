"""Signing keys over time, on a real Postgres: replicas, a clock that is moved, and what the table holds."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from cryptography.exceptions import InvalidTag
from joserfc import jws

from services.auth.adapters.jose import JoseTokenSigner
from services.auth.adapters.postgres.signing import PostgresSigningKeys
from services.auth.domain.signing import LONGEST_TOKEN, PUBLISHED_AHEAD, SigningKey
from services.auth.service.tokens import TokenIssuer
from services.contracts.auth.tokens import IssueLocalTokenRequest
from services.kit.storage.db import Database
from tests.component.auth.conftest import AuthApp
from tests.requirements import requirement

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
QUARTER = timedelta(days=90)
SECRET = "a secret of at least thirty-two characters"
REPLICAS = 4


class MovedClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
async def stores(own_database_url: str) -> AsyncIterator[list[PostgresSigningKeys]]:
    """The key stores of replicas, each with connections of its own."""
    databases = [Database(own_database_url) for _ in range(REPLICAS)]
    yield [PostgresSigningKeys(database) for database in databases]
    for database in databases:
        await database.close()


def an_issuer(store: PostgresSigningKeys, clock: MovedClock) -> TokenIssuer:
    return TokenIssuer(
        keys=store,
        signer=JoseTokenSigner(SECRET),
        clock=clock,
        issuer="yocaso",
        audience="yocaso",
        max_age=QUARTER,
        issues_local_tokens=True,
    )


async def signer(issuer: TokenIssuer) -> str:
    request = IssueLocalTokenRequest(user_id="alice", email="alice@example.com")
    token = (await issuer.issue_local(request)).access_token
    return jws.extract_compact(token.encode()).headers()["kid"]


async def published(issuer: TokenIssuer) -> list[str]:
    return [key["kid"] for key in (await issuer.published()).keys]


async def test_replicas_that_start_first_together_make_one_key(
    stores: list[PostgresSigningKeys], clock: MovedClock
) -> None:
    issuers = [an_issuer(store, clock) for store in stores]
    await asyncio.gather(*(issuer.rotate_when_due() for issuer in issuers))
    assert len(await stores[0].all()) == 1
    assert len({await signer(issuer) for issuer in issuers}) == 1


@requirement("auth:rotation")
async def test_replicas_that_rotate_together_make_one_successor(
    stores: list[PostgresSigningKeys], clock: MovedClock
) -> None:
    issuers = [an_issuer(store, clock) for store in stores]
    await issuers[0].rotate_when_due()
    await asyncio.gather(*(issuer.rotate() for issuer in issuers))
    assert len(await stores[0].all()) == 2


@requirement("auth:rotation")
async def test_a_successor_is_published_then_signs_and_the_old_key_leaves_after_the_longest_token(
    stores: list[PostgresSigningKeys], clock: MovedClock
) -> None:
    one, other = (an_issuer(store, clock) for store in stores[:2])
    await one.rotate_when_due()
    old = await signer(one)
    await one.rotate()
    new = next(kid for kid in await published(other) if kid != old)
    assert await signer(other) == old
    clock.now += PUBLISHED_AHEAD
    assert await signer(other) == new
    assert await published(other) == [new, old]
    clock.now += LONGEST_TOKEN
    assert await published(other) == [new]


async def test_a_key_that_is_old_is_replaced_without_being_asked(
    stores: list[PostgresSigningKeys], clock: MovedClock
) -> None:
    issuer = an_issuer(stores[0], clock)
    await issuer.rotate_when_due()
    clock.now += QUARTER - timedelta(seconds=1)
    await issuer.rotate_when_due()
    assert len(await published(issuer)) == 1
    clock.now += timedelta(seconds=1)
    await issuer.rotate_when_due()
    assert len(await published(issuer)) == 2


async def test_a_rotation_that_ends_half_way_leaves_nothing_behind(
    stores: list[PostgresSigningKeys], clock: MovedClock
) -> None:
    def dies(keys: Sequence[SigningKey]) -> SigningKey | None:
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await stores[0].add(dies)
    assert await stores[1].all() == []
    await an_issuer(stores[1], clock).rotate_when_due()
    assert len(await stores[0].all()) == 1


@requirement("auth:jwks")
async def test_private_numbers_are_neither_in_the_table_nor_in_the_log(
    replicas: list[AuthApp], database_url: str
) -> None:
    app = replicas[0]
    await app.call("IssueLocalToken", userId="alice", email="alice@example.com")
    await app.call("RotateKey")
    connection = await asyncpg.connect(database_url)
    rows = await connection.fetch("SELECT signing_keys::text AS row FROM auth.signing_keys")
    keys = await connection.fetch("SELECT kid, sealed FROM auth.signing_keys")
    await connection.close()
    seen = app.log.read_text() + "".join(bytes(key["sealed"]).decode("latin-1") for key in keys)
    seen += "".join(row["row"] for row in rows)
    for key in keys:
        private = unsealed(SECRET, key["kid"], key["sealed"])
        for member in ("d", "p", "q", "dp", "dq", "qi"):
            assert private[member] not in seen
        assert private["n"] in seen  # the public number is there, so the search can find what is


async def test_another_secret_opens_no_key_and_no_key_opens_in_the_place_of_another(
    clock: MovedClock,
) -> None:
    key = JoseTokenSigner(SECRET).make_key(clock())
    with pytest.raises(InvalidTag):
        JoseTokenSigner(SECRET[::-1]).sign(key, {})
    with pytest.raises(InvalidTag):
        JoseTokenSigner(SECRET).sign(key.model_copy(update={"kid": "another"}), {})


def unsealed(secret: str, kid: str, sealed: bytes) -> dict[str, str]:
    """The private key in clear, as only the holder of the secret can have it."""
    cipher = JoseTokenSigner(secret)._cipher
    return json.loads(cipher.decrypt(sealed[:12], sealed[12:], kid.encode()))
