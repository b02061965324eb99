"""API keys of the real app: two replicas, a real Postgres, Valkey and OpenFGA."""

import asyncio
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from services.auth.adapters.hashing import random_base62
from services.auth.domain.keys import CHECKSUM_LENGTH, checksum, new_secret
from services.contracts.auth.keys import KeyMode
from tests.component.auth.conftest import (
    AuthApp,
    AuthApps,
    Person,
    administer,
    by_app,
    counted_together,
    verify,
)
from tests.requirements import requirement
from tests.support.failpoint_control import FailpointControl
from tests.support.wait import wait_until

NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MISSING = f"key_{'0' * 32}"
READ = "conversations:read"
KEY_SECRET = "a secret of at least thirty-two characters"


def somebody(app: AuthApp, **fields: Any) -> Person:
    return Person(app, f"user_{secrets.token_hex(8)}", **fields)


def an_organization() -> str:
    return f"org-{secrets.token_hex(6)}"


@requirement("access:keys:verify")
async def test_a_key_is_good_on_every_replica_and_speaks_for_its_owner(
    replicas: list[AuthApp],
) -> None:
    ada = somebody(replicas[0])
    made = await ada.key(mode="TEST")
    key = made["apiKey"]
    assert made["secret"].startswith(key["start"])
    assert key["start"].startswith("yk_test_")
    assert (key["status"], key["userId"]) == ("ACTIVE", ada.user_id)
    for app in replicas:
        assert await verify(app, made["secret"]) == {
            "valid": True,
            "code": "VALID",
            "keyId": key["keyId"],
            "userId": ada.user_id,
            "email": f"{ada.user_id}@example.com",
            "scopes": ["conversations:read", "conversations:write"],
        }
    low = await verify(replicas[0], made["secret"], scope="audit:read")
    assert (low["valid"], low["code"]) == (False, "INSUFFICIENT_SCOPE")


@requirement("access:keys:verify")
async def test_what_is_not_a_key_of_ours_tells_nothing(replicas: list[AuthApp]) -> None:
    secret = (await somebody(replicas[0]).key())["secret"]
    body = secret[: -CHECKSUM_LENGTH - 1] + ("a" if secret[-CHECKSUM_LENGTH - 1] != "a" else "b")
    for wrong in (
        body + checksum(body),  # the start is right, and so is the checksum
        new_secret(KeyMode.LIVE, random_base62),
        secret[:-1],
        "sk-something-else",
    ):
        assert await verify(replicas[0], wrong) == {
            "valid": False,
            "code": "NOT_FOUND",
            "scopes": [],
        }


@requirement("access:keys-never-mint-keys")
async def test_a_key_neither_makes_nor_changes_keys(replicas: list[AuthApp]) -> None:
    ada = somebody(replicas[0])
    key_id = (await ada.key())["apiKey"]["keyId"]
    by_key = Person(ada.app, ada.user_id, key_id=key_id)
    for method, body in (
        ("CreateApiKey", {"name": "more", "scopes": [READ]}),
        ("UpdateApiKey", {"keyId": key_id, "scopes": [READ]}),
        ("RotateApiKey", {"keyId": key_id}),
    ):
        status, refused = await by_key.call("ApiKeyService", method, **body)
        assert (status, refused["error"]["code"]) == (403, "PERMISSION_DENIED")


@requirement("access:keys:scopes")
async def test_a_key_is_given_no_more_than_its_maker_has(replicas: list[AuthApp]) -> None:
    narrow = somebody(replicas[0], scopes=("keys:write", READ))
    for scopes in (["keys:write"], ["account:write"], [READ, "audit:read"]):
        status, refused = await narrow.call(
            "ApiKeyService", "CreateApiKey", name="ci", scopes=scopes
        )
        assert (status, refused["error"]["code"]) == (400, "INVALID_ARGUMENT")
    key_id = (await narrow.key(scopes=[READ]))["apiKey"]["keyId"]
    status, refused = await narrow.call(
        "ApiKeyService", "UpdateApiKey", keyId=key_id, scopes=[READ, "audit:read"]
    )
    assert status == 400
    assert refused["error"]["details"]["fieldViolations"][0]["field"] == "scopes[1]"


@requirement("access:keys:ownership", "access:foreign-as-missing")
async def test_only_its_owner_reads_changes_and_ends_a_key(replicas: list[AuthApp]) -> None:
    ada, eve = somebody(replicas[0]), somebody(replicas[1])
    key_id = (await ada.key())["apiKey"]["keyId"]
    for method in ("GetApiKey", "UpdateApiKey", "RotateApiKey", "RevokeApiKey"):
        foreign = await eve.call("ApiKeyService", method, keyId=key_id)
        missing = await eve.call("ApiKeyService", method, keyId=MISSING)
        assert foreign == missing
        assert (foreign[0], foreign[1]["error"]["code"]) == (404, "NOT_FOUND")
    status, read = await ada.call("ApiKeyService", "GetApiKey", keyId=key_id)
    assert (status, read["status"], read["name"]) == (200, "ACTIVE", "ci")


async def test_the_owners_keys_are_listed_in_pages_newest_first(replicas: list[AuthApp]) -> None:
    ada, eve = somebody(replicas[0]), somebody(replicas[0])
    made = [(await ada.key(name=f"key {n}"))["apiKey"]["keyId"] for n in range(5)]
    await eve.key()
    listed, cursor = [], {}
    for _ in range(3):
        status, page = await ada.call("ApiKeyService", "ListApiKeys", limit=2, **cursor)
        assert status == 200
        listed += [key["keyId"] for key in page["apiKeys"]]
        cursor = {"cursor": page["nextCursor"]} if "nextCursor" in page else {}
    assert listed == made[::-1]
    assert cursor == {}
    _, first = await ada.call("ApiKeyService", "ListApiKeys", limit=2)
    status, refused = await eve.call("ApiKeyService", "ListApiKeys", cursor=first["nextCursor"])
    assert (status, refused["error"]["code"]) == (400, "INVALID_ARGUMENT")


@requirement("access:keys:organization", "access:foreign-as-missing")
async def test_only_admins_have_to_do_with_an_organizations_keys(replicas: list[AuthApp]) -> None:
    app, acme = replicas[0], an_organization()
    admin, other_admin, stranger = (somebody(app) for _ in range(3))
    await administer(app, admin.user_id, acme)
    await administer(app, other_admin.user_id, acme)
    made = await admin.key(organizationId=acme)
    key = made["apiKey"]
    assert (key["userId"], key["organizationId"]) == (f"organization.{acme}", acme)
    answer = await verify(app, made["secret"])
    assert (answer["userId"], answer.get("email")) == (f"organization.{acme}", None)
    for person, expected in ((other_admin, 200), (stranger, 404)):
        status, _ = await person.call("ApiKeyService", "GetApiKey", keyId=key["keyId"])
        assert status == expected
        status, _ = await person.call("ApiKeyService", "ListApiKeys", organizationId=acme)
        assert status == expected
        _, own = await person.call("ApiKeyService", "ListApiKeys")
        assert own["apiKeys"] == []
    for body in ({"organizationId": acme}, {"organizationId": an_organization()}):
        wanted = {"name": "mine", "scopes": [READ], **body}
        status, refused = await stranger.call("ApiKeyService", "CreateApiKey", **wanted)
        assert (status, refused["error"]["message"]) == (404, "No such organization.")
    service_user = Person(app, f"organization.{acme}", key_id=key["keyId"])
    for body in ({}, {"organizationId": acme}):
        _, listed = await service_user.call("ApiKeyService", "ListApiKeys", **body)
        assert not listed.get("apiKeys")


async def test_an_update_changes_what_it_names_and_null_lifts(replicas: list[AuthApp]) -> None:
    ada = somebody(replicas[0])
    later = (datetime.now(UTC) + HOUR).strftime("%Y-%m-%dT%H:%M:%SZ")
    budget = {"amount": 2.5, "period": "DAY"}
    key = (await ada.key(expiresAt=later, budget=budget, rateLimit={"limit": 5}))["apiKey"]
    assert (key["expiresAt"], key["budget"]) == (later, budget)
    _, changed = await ada.call("ApiKeyService", "UpdateApiKey", keyId=key["keyId"], name="new")
    assert changed == {**key, "name": "new"}
    _, lifted = await ada.call(
        "ApiKeyService",
        "UpdateApiKey",
        keyId=key["keyId"],
        expiresAt=None,
        budget=None,
        rateLimit=None,
    )
    assert {"expiresAt", "budget", "rateLimit"}.isdisjoint(lifted)
    status, refused = await ada.call(
        "ApiKeyService", "UpdateApiKey", keyId=key["keyId"], expiresAt="2020-01-01T00:00:00Z"
    )
    assert (status, refused["error"]["code"]) == (400, "INVALID_ARGUMENT")


@requirement("access:keys:revoke")
async def test_a_revoked_key_is_refused_at_once_by_every_replica(replicas: list[AuthApp]) -> None:
    ada = somebody(replicas[0])
    made = await ada.key()
    key_id = made["apiKey"]["keyId"]
    _, rotated = await ada.call("ApiKeyService", "RotateApiKey", keyId=key_id, graceSeconds=600)
    status, revoked = await ada.call("ApiKeyService", "RevokeApiKey", keyId=key_id)
    assert (status, revoked["status"]) == (200, "REVOKED")
    for app in replicas:
        assert (await verify(app, rotated["secret"]))["code"] == "REVOKED"
        assert (await verify(app, made["secret"]))["code"] == "NOT_FOUND"
        _, listed = await by_app(app, "edge", "TokenService", "ListRevocations")
        assert ("key_id", key_id) in {(r["claim"], r["value"]) for r in listed["revocations"]}
    assert await ada.call("ApiKeyService", "RevokeApiKey", keyId=key_id) == (200, revoked)
    status, refused = await ada.call("ApiKeyService", "RotateApiKey", keyId=key_id)
    assert (status, refused["error"]["code"]) == (400, "FAILED_PRECONDITION")


@requirement("access:keys:limits")
async def test_a_rate_holds_over_replicas(replicas: list[AuthApp]) -> None:
    ada = somebody(replicas[0])

    async def asked() -> tuple[list[str], dict[str, Any]]:
        secret = (await ada.key(rateLimit={"limit": 5, "windowSeconds": 3600}))["secret"]
        calls = (verify(replicas[n % 2], secret, cost=1) for n in range(12))
        codes = [answer["code"] for answer in await asyncio.gather(*calls)]
        return codes, await verify(replicas[0], secret)

    codes, free = await counted_together(replicas, asked)
    assert (codes.count("VALID"), codes.count("RATE_LIMITED")) == (5, 7)
    assert (free["code"], free["remainingCalls"]) == ("VALID", 0)


@requirement("access:keys:charges", "access:keys:limits")
async def test_a_cost_is_booked_once_per_reference_and_the_budget_ends_the_key(
    replicas: list[AuthApp],
) -> None:
    ada = somebody(replicas[0])
    made = await ada.key(budget={"amount": 1.0, "period": "TOTAL"})
    key_id = made["apiKey"]["keyId"]

    async def charge(app: AuthApp, reference: str, amount: float) -> None:
        body = {"keyId": key_id, "reference": reference, "amount": amount}
        status, answer = await by_app(app, "llm", "ApiKeyService", "ChargeApiKey", **body)
        assert (status, answer) == (200, {})

    await asyncio.gather(*(charge(replicas[n % 2], f"turn-{n // 4}", 0.1) for n in range(36)))
    answer = await verify(replicas[1], made["secret"])
    assert (answer["valid"], answer["remainingBudget"]) == (True, pytest.approx(0.1))
    await charge(replicas[0], "turn-last", 0.1)
    answer = await verify(replicas[1], made["secret"])
    assert (answer["code"], answer["remainingBudget"]) == ("BUDGET_EXCEEDED", 0.0)
    _, read = await ada.call("ApiKeyService", "GetApiKey", keyId=key_id)
    assert read["spent"] == pytest.approx(1.0)
    body = {"keyId": MISSING, "reference": "turn", "amount": 1.0}
    assert (await by_app(replicas[0], "llm", "ApiKeyService", "ChargeApiKey", **body))[0] == 200


async def test_a_use_is_noted_once_in_a_while(replicas: list[AuthApp]) -> None:
    ada = somebody(replicas[0])
    made = await ada.key()
    key_id = made["apiKey"]["keyId"]
    assert "lastUsedAt" not in made["apiKey"]
    await asyncio.gather(*(verify(replicas[n % 2], made["secret"]) for n in range(8)))

    async def noted() -> str | None:
        _, read = await ada.call("ApiKeyService", "GetApiKey", keyId=key_id)
        return read.get("lastUsedAt")

    first = await wait_until(noted, what="the use to be noted")
    await verify(replicas[1], made["secret"])
    assert await noted() == first


@requirement("access:keys:ownership")
async def test_a_key_whose_maker_was_never_answered_is_managed_by_its_owner(
    auth_apps: AuthApps, replicas: list[AuthApp], tmp_path: Path
) -> None:
    with FailpointControl(tmp_path / "failpoints", "auth.key_created:1:kill") as control:
        app = auth_apps.start(control.environment)
        ada = somebody(await app.until_ready())
        call = asyncio.create_task(ada.key())
        await control.wait_for("auth.key_created")
        with pytest.raises(Exception):  # noqa: B017, PT011 - however a cut connection shows itself
            await call
    again = Person(replicas[0], ada.user_id)
    _, listed = await again.call("ApiKeyService", "ListApiKeys")
    [key] = listed["apiKeys"]

    async def managed() -> bool:
        status, _ = await again.call("ApiKeyService", "RevokeApiKey", keyId=key["keyId"])
        return status == 200

    await wait_until(managed, what="the a_tuple to be delivered by another replica")
