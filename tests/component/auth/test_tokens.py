"""Tokens and keys of the real app on a real Postgres."""

import asyncio
from typing import Any

import aiohttp
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from tests.component.auth.conftest import START_SECONDS, AuthApp, AuthApps
from tests.requirements import requirement

ALICE = {"userId": "alice", "email": "alice@example.com"}


def claims_of(token: str, jwks: dict[str, Any]) -> dict[str, Any]:
    return jwt.decode(token, KeySet.import_key_set(jwks), algorithms=["RS256"]).claims  # type: ignore[arg-type]


@requirement("auth:issue-token")
async def test_a_local_token_says_who_it_is_for_and_verifies_by_the_key_set(
    replicas: list[AuthApp],
) -> None:
    app = replicas[0]
    status, issued = await app.call("IssueLocalToken", **ALICE, scopes=["chat"], ttlSeconds=60)
    assert status == 200
    claims = claims_of(issued["accessToken"], await app.jwks())
    assert (claims["sub"], claims["email"], claims["scope"]) == (
        "alice",
        "alice@example.com",
        "chat",
    )
    assert (claims["iss"], claims["aud"]) == ("yocaso", "yocaso")
    assert claims["exp"] - claims["iat"] == 60


@requirement("auth:jwks")
async def test_the_key_set_shows_public_parts_only(replicas: list[AuthApp]) -> None:
    for key in (await replicas[0].jwks())["keys"]:
        assert set(key) == {"kty", "n", "e", "kid", "use", "alg"}


async def test_a_caller_that_is_not_the_sidecar_gets_no_token(replicas: list[AuthApp]) -> None:
    url = f"{replicas[0].url}/yocaso.auth.v1.TokenService/IssueLocalToken"
    async with aiohttp.ClientSession() as session, session.post(url, json=ALICE) as reply:
        refused = await reply.json()
    assert (reply.status, refused["error"]["code"]) == (401, "UNAUTHENTICATED")


@requirement("auth:rotation")
async def test_after_a_rotation_tokens_of_the_old_key_still_verify(replicas: list[AuthApp]) -> None:
    app = replicas[0]
    _, before = await app.call("IssueLocalToken", **ALICE)
    status, rotated = await app.call("RotateKey")
    assert status == 200
    _, again = await app.call("RotateKey")
    assert [key["kid"] for key in again["keys"]] == [key["kid"] for key in rotated["keys"]]
    jwks = await app.jwks()
    assert len(jwks["keys"]) >= 2
    assert claims_of(before["accessToken"], jwks)["sub"] == "alice"


@pytest.mark.timeout(150)
async def test_replicas_that_start_together_share_their_keys_and_a_later_start_keeps_them(
    replicas: list[AuthApp], auth_apps: AuthApps
) -> None:
    sets = [await app.jwks() for app in replicas]
    assert sets[0] == sets[1]
    later = await auth_apps.start().until_ready()
    assert await later.jwks() == sets[1]


async def test_production_issues_no_local_tokens(auth_apps: AuthApps) -> None:
    app = await auth_apps.start({"YOCASO_ENV": "production"}).until_ready()
    status, refused = await app.call("IssueLocalToken", **ALICE)
    assert (status, refused["error"]["code"]) == (403, "PERMISSION_DENIED")


async def test_bad_input_names_the_field(replicas: list[AuthApp]) -> None:
    for field, body in (
        ("userId", {**ALICE, "userId": ""}),
        ("email", {**ALICE, "email": "nobody"}),
        ("ttlSeconds", {**ALICE, "ttlSeconds": 1}),
        ("scopes[0]", {**ALICE, "scopes": ["Not A Scope"]}),
        ("surprise", {**ALICE, "surprise": 1}),
    ):
        status, refused = await replicas[0].call("IssueLocalToken", **body)
        assert status == 400
        assert refused["error"]["details"]["fieldViolations"][0]["field"] == field


async def test_without_a_secret_the_app_refuses_to_start_and_names_the_variable(
    auth_apps: AuthApps,
) -> None:
    app = auth_apps.start({"AUTH_KEY_SECRET": "short"})
    assert await asyncio.to_thread(app.process.wait, START_SECONDS) == 2
    assert "AUTH_KEY_SECRET" in app.log.read_text()
