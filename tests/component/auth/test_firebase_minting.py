"""Session cookies, custom tokens, the link that lasts, and what happens where Firebase is off or only half set up."""

import asyncio
import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import aiohttp
import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from tests.component.auth.conftest import START_SECONDS, AuthApp, AuthApps
from tests.requirements import requirement
from tests.support.failpoint_control import FailpointControl
from tests.support.firebase.bridge import COOKIE, Bridge
from tests.support.firebase.signing import signing_input
from tests.support.wait import wait_until

CUSTOM_TOKEN_AUDIENCE: Final = (
    "https://identitytoolkit.googleapis.com/google.identity.identitytoolkit.v1.IdentityToolkit"
)
# A new process takes seconds until its sidecar believes it; tests that restart have more time.


async def cookie_of(bridge: Bridge, uid: str, seconds: int = 600) -> str:
    minted = await bridge.call(
        "CreateSessionCookie", idToken=bridge.google.id_token(uid), ttlSeconds=seconds
    )
    assert minted.status == 200, minted
    assert minted.body["expiresIn"] == seconds
    return minted.body["sessionCookie"]


@requirement("access:firebase:minting")
async def test_a_session_cookie_is_minted_and_traded_for_tokens_of_the_same_user(
    bridge: Bridge,
) -> None:
    bridge.google.add("carol")
    cookie = await cookie_of(bridge, "carol")
    claims = await bridge.claims(await bridge.exchange(cookie, COOKIE))
    assert claims["sub"] == await bridge.user_id("carol")
    assert (await bridge.exchange(cookie)).code == "UNAUTHENTICATED"
    signature = cookie[-10:]
    assert (await bridge.exchange(cookie[:-10] + signature[::-1], COOKIE)).code == "UNAUTHENTICATED"


@requirement("access:firebase:minting")
async def test_a_session_cookie_is_not_minted_for_an_old_sign_in_or_a_strange_time(
    bridge: Bridge,
) -> None:
    bridge.google.add("carol")
    old = bridge.google.id_token("carol", auth_time=int(time.time()) - 400)
    assert (await bridge.exchange(old)).status == 200
    refused = await bridge.call("CreateSessionCookie", idToken=old)
    assert (refused.code, "sign in again" in refused.message) == ("UNAUTHENTICATED", True)
    for seconds in (299, 1_209_601):
        token = bridge.google.id_token("carol")
        strange = await bridge.call("CreateSessionCookie", idToken=token, ttlSeconds=seconds)
        assert strange.code == "INVALID_ARGUMENT"
    assert (await bridge.call("CreateSessionCookie", idToken="x")).code == "UNAUTHENTICATED"
    assert bridge.google.calls["cookie"] == 0


async def test_firebase_may_refuse_a_session_cookie_or_be_away(bridge: Bridge) -> None:
    bridge.google.add("carol")
    bridge.google.cookie_error = "USER_DISABLED"
    token = bridge.google.id_token("carol")
    assert (await bridge.call("CreateSessionCookie", idToken=token)).code == "UNAUTHENTICATED"
    bridge.google.cookie_error = None
    bridge.google.down = {"cookie"}
    assert (await bridge.call("CreateSessionCookie", idToken=token)).code == "UNAVAILABLE"


@requirement("access:firebase:minting")
async def test_a_custom_token_is_of_the_caller_and_verifies_by_the_service_accounts_key(
    bridge: Bridge,
) -> None:
    bridge.google.add("dave")
    minted = await bridge.custom_token(await bridge.user_id("dave"))
    assert minted.status == 200, minted
    key = RSAKey.import_key(bridge.google.account.public_pem())
    claims = jwt.decode(minted.body["customToken"], key, algorithms=["RS256"]).claims
    assert claims["uid"] == "dave"
    assert claims["aud"] == CUSTOM_TOKEN_AUDIENCE
    assert claims["iss"] == claims["sub"] == bridge.google.service_account()["client_email"]
    assert claims["exp"] - claims["iat"] <= 3600
    assert (await bridge.exchange(minted.body["customToken"])).code == "UNAUTHENTICATED"


@requirement("access:firebase:minting")
async def test_who_did_not_come_from_firebase_gets_no_custom_token_and_neither_does_a_key(
    bridge: Bridge,
) -> None:
    bridge.google.add("dave")
    user_id = await bridge.user_id("dave")
    assert (await bridge.custom_token("alice")).code == "FAILED_PRECONDITION"
    by_key = await bridge.custom_token(user_id, **{"x-key-id": "key_1"})
    assert by_key.code == "PERMISSION_DENIED"
    narrow = await bridge.custom_token(user_id, **{"x-scopes": "conversations:read"})
    assert narrow.code == "PERMISSION_DENIED"


@requirement("access:firebase:link")
@pytest.mark.timeout(180)
async def test_the_link_survives_the_death_of_the_app(bridge: Bridge) -> None:
    bridge.google.add("erin")
    user_id = await bridge.user_id("erin")
    await bridge.restart()
    assert await bridge.user_id("erin") == user_id
    minted = await bridge.custom_token(user_id)
    assert minted.status == 200, minted


@requirement("access:firebase:link", "access:firebase:standing")
@pytest.mark.timeout(180)
async def test_killed_between_question_and_record_the_next_sign_in_asks_again(
    bridge: Bridge, tmp_path: Path
) -> None:
    google = bridge.google
    google.add("frank")
    with FailpointControl(tmp_path / "fp", "firebase.after_lookup:1:kill") as control:
        # frank is its own probe
        await asyncio.to_thread(bridge.stack.restart, "auth", env=control.environment)
        pid = bridge.stack.pid("auth")
        assert pid is not None

        async def killed() -> bool:
            with suppress(aiohttp.ClientError):
                assert (await bridge.exchange(google.id_token("frank"))).code == "UNAVAILABLE"
            return control.has_hit("firebase.after_lookup")

        await wait_until(killed, 30, "the question")
        await asyncio.to_thread(bridge.stack.wait_exited, "auth", pid)
        asked = google.asked_about["frank"]
        assert asked > 0
        await bridge.restart()
        user_id = await bridge.user_id("frank")
        assert google.asked_about["frank"] > asked
        assert (await bridge.custom_token(user_id)).status == 200


async def test_what_is_secret_is_not_in_the_log(bridge: Bridge) -> None:
    google = bridge.google
    google.add("grace")
    token = google.id_token("grace")
    await bridge.exchange(token)
    await bridge.call("CreateSessionCookie", idToken=token)
    google.down = {"lookup", "cookie"}
    google.add("heidi")
    await bridge.exchange(google.id_token("heidi"))
    await bridge.call("CreateSessionCookie", idToken=token)
    await wait_until(lambda: "firebase.unreachable" in written(bridge), what="what can be found")
    log = written(bridge)
    private = google.account.private_pem().splitlines()[1]
    for secret in (token, token.rpartition(".")[2], private, "ya29.", "grace", "heidi"):
        assert secret not in log


def written(bridge: Bridge) -> str:
    """The log of auth; a line is there a moment after it was said."""
    return bridge.stack.log("auth").read_text()


@requirement("access:firebase:settings")
@pytest.mark.timeout(180)
async def test_without_credentials_sign_in_works_and_nothing_is_minted(bridge: Bridge) -> None:
    bridge.google.add("ivan")
    await bridge.restart({"AUTH_FIREBASE_CREDENTIALS": ""})
    user_id = await bridge.user_id("ivan")
    token = bridge.google.id_token("ivan")
    assert (await bridge.call("CreateSessionCookie", idToken=token)).code == "FAILED_PRECONDITION"
    assert (await bridge.custom_token(user_id)).code == "FAILED_PRECONDITION"
    assert bridge.google.calls["lookup"] == 0
    account = json.dumps(bridge.google.service_account())
    await bridge.restart({"AUTH_FIREBASE_CREDENTIALS": account})


@requirement("access:firebase:settings")
async def test_the_emulators_tokens_count_only_where_it_was_asked_for(bridge: Bridge) -> None:
    bridge.google.add("judy")
    unsigned = signing_input({"alg": "none", "typ": "JWT"}, bridge.google.claims("judy")) + "."
    assert (await bridge.exchange(unsigned)).code == "UNAUTHENTICATED"


@requirement("access:firebase:settings")
async def test_without_a_project_sign_in_by_firebase_is_off(replicas: list[AuthApp]) -> None:
    for method, body in (
        ("ExchangeToken", {"subjectToken": "x", "subjectTokenType": COOKIE}),
        ("CreateSessionCookie", {"idToken": "x"}),
    ):
        by_edge = {"dapr-caller-app-id": "edge"}
        _, refused = await replicas[0].ask("TokenService", method, body, by_edge)
        assert refused["error"]["code"] == "FAILED_PRECONDITION"


@requirement("access:firebase:settings")
async def test_production_does_not_start_with_the_emulator(auth_apps: AuthApps) -> None:
    env = {
        "YOCASO_ENV": "production",
        "FIREBASE_AUTH_EMULATOR_HOST": "127.0.0.1:9099",
        "AUTH_FIREBASE_ALLOW_EMULATOR": "true",
    }
    app = auth_apps.start(env)
    assert await asyncio.to_thread(app.process.wait, START_SECONDS) == 2
    assert "FIREBASE_AUTH_EMULATOR_HOST" in app.log.read_text()
