"""What is kept of the secrets of API keys, how long they work, and what a guess learns."""

import asyncio
import secrets
import statistics
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from services.auth.adapters.hashing import random_base62
from services.auth.domain.keys import CHECKSUM_LENGTH, checksum
from services.auth.service.keys import ApiKeyService
from services.cli.stack import Stack
from services.contracts.apps import USER_SCOPES
from services.contracts.auth.keys import (
    ChargeApiKeyRequest,
    CreateApiKeyRequest,
    KeyBudget,
    RotateApiKeyRequest,
    VerifyCode,
)
from services.kit.access.identity import CallerIdentity
from tests.component.auth.conftest import AuthApp, Person, by_app, verify
from tests.component.auth.stores import MovedClock, open_stores
from tests.requirements import requirement

NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
READ = "conversations:read"


@pytest.fixture
async def moved(
    servers: Stack, replicas: list[AuthApp]
) -> AsyncIterator[tuple[ApiKeyService, MovedClock]]:
    """The keys of the replicas' stores, at a time of the test's own."""
    del replicas  # they have migrated the database
    clock = MovedClock(NOON)
    async with open_stores(servers, clock) as stores:
        yield stores.keys, clock


@requirement("access:keys:hidden")
async def test_neither_database_nor_log_has_a_secret(
    replicas: list[AuthApp], servers: Stack
) -> None:
    ada = Person(replicas[0], f"user_{secrets.token_hex(8)}")
    made = await ada.key()
    status, rotated = await ada.call(
        "ApiKeyService", "RotateApiKey", keyId=made["apiKey"]["keyId"], graceSeconds=60
    )
    assert status == 200
    for secret in (made["secret"], rotated["secret"]):
        assert (await verify(replicas[0], secret))["valid"]
        exchange = {
            "subjectToken": secret,
            "subjectTokenType": "urn:yocaso:params:oauth:token-type:api-key",
        }
        assert (await by_app(replicas[0], "edge", "TokenService", "ExchangeToken", **exchange))[
            0
        ] == 200
    _, read = await ada.call("ApiKeyService", "GetApiKey", keyId=made["apiKey"]["keyId"])
    seen = await dump(servers.database_url()) + str(read)
    seen += "".join(app.log.read_text() for app in replicas)
    assert rotated["apiKey"]["start"] in seen  # the search can find what is there
    for secret in (made["secret"], rotated["secret"]):
        unknown = secret[len(made["apiKey"]["start"]) :]
        for part in (unknown, unknown[:12], unknown[:-CHECKSUM_LENGTH], unknown.encode().hex()):
            assert part not in seen


async def dump(database_url: str) -> str:
    """Every row of every table of auth, as text."""
    connection = await asyncpg.connect(database_url)
    tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'auth'")
    rows = [
        str(row["row"])
        for table in tables
        for row in await connection.fetch(
            f"SELECT t::text AS row FROM auth.{table['tablename']} AS t"
        )
    ]
    await connection.close()
    return "\n".join(rows)


def ada_herself() -> CallerIdentity:
    return CallerIdentity("ada", "ada@example.com", frozenset(USER_SCOPES))


@requirement("access:keys:rotate")
async def test_both_secrets_work_during_the_grace_and_the_old_one_not_after(
    moved: tuple[ApiKeyService, MovedClock],
) -> None:
    keys, clock = moved
    ada = ada_herself()
    made = await keys.create(CreateApiKeyRequest(name="ci", scopes=[READ]), ada)
    rotate = RotateApiKeyRequest(key_id=made.api_key.key_id, grace_seconds=3600)
    second = await keys.rotate(rotate, ada)
    assert second.api_key.previous_expires_at == NOON + HOUR
    clock.now = NOON + HOUR - timedelta(seconds=1)
    old, new = [await keys.verify(each.secret, READ, 0) for each in (made, second)]
    assert (old.code, new.code) == (VerifyCode.VALID, VerifyCode.VALID)
    assert (old.expires_at, new.expires_at) == (NOON + HOUR, None)
    clock.now = NOON + HOUR
    assert (await keys.verify(made.secret, READ, 0)).code is VerifyCode.NOT_FOUND
    assert (await keys.verify(second.secret, READ, 0)).code is VerifyCode.VALID


@requirement("access:keys:rotate")
async def test_rotating_again_drops_the_older_secret_and_rotations_queue(
    moved: tuple[ApiKeyService, MovedClock],
) -> None:
    keys, _ = moved
    ada = ada_herself()
    made = await keys.create(CreateApiKeyRequest(name="ci", scopes=[READ]), ada)
    rotate = RotateApiKeyRequest(key_id=made.api_key.key_id)
    rotated = await asyncio.gather(*(keys.rotate(rotate, ada) for _ in range(4)))
    codes = [(await keys.verify(each.secret, None, 0)).code for each in rotated]
    assert (codes.count(VerifyCode.VALID), codes.count(VerifyCode.NOT_FOUND)) == (2, 2)
    assert (await keys.verify(made.secret, None, 0)).code is VerifyCode.NOT_FOUND


async def test_a_key_is_over_at_its_expiry_and_a_budget_begins_again_with_its_period(
    moved: tuple[ApiKeyService, MovedClock],
) -> None:
    keys, clock = moved
    request = CreateApiKeyRequest(
        name="ci", scopes=[READ], budget=KeyBudget(amount=1.0), expires_at=NOON + 30 * 24 * HOUR
    )
    made = await keys.create(request, ada_herself())
    key_id = made.api_key.key_id
    await keys.charge(ChargeApiKeyRequest(key_id=key_id, reference="turn", amount=1.0))
    codes = []
    for days in (0, 16, 17, 29, 30):  # the 15th, the 31st, the 1st of the next month …
        clock.now = NOON + days * 24 * HOUR
        codes.append((await keys.verify(made.secret, None, 0)).code)
    spent, good, over = VerifyCode.BUDGET_EXCEEDED, VerifyCode.VALID, VerifyCode.EXPIRED
    assert codes == [spent, spent, good, good, over]


@pytest.mark.timeout(300)
@requirement("access:keys:timing")
@pytest.mark.parametrize("calls", [2_000, pytest.param(20_000, marks=pytest.mark.long)])
async def test_an_unknown_key_takes_as_long_as_a_wrong_secret(
    moved: tuple[ApiKeyService, MovedClock], calls: int
) -> None:
    keys, _ = moved
    made = await keys.create(CreateApiKeyRequest(name="ci", scopes=[READ]), ada_herself())
    start = made.api_key.start
    took: dict[str, list[int]] = {"wrong": [], "unknown": []}

    def wrong(beginning: str) -> str:
        body = beginning + random_base62(28)
        return body + checksum(body)

    for number in range(calls):
        kind = ("wrong", "unknown")[number % 2]
        secret = wrong(start if kind == "wrong" else f"yk_live_{random_base62(10)}")
        began = time.perf_counter_ns()
        found = await keys.verify(secret, None, 0)
        took[kind].append(time.perf_counter_ns() - began)
        assert found.code is VerifyCode.NOT_FOUND
    medians = {kind: statistics.median(times) for kind, times in took.items()}
    print({kind: f"{median / 1e6:.3f} ms" for kind, median in medians.items()})
    assert 0.5 < medians["unknown"] / medians["wrong"] < 2
