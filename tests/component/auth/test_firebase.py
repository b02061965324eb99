"""Sign-in by Firebase: the real auth app with its sidecar and stores, a wire-true Google, the official SDK."""

import asyncio
import time

import pytest

from services.auth.adapters.firebase.directory import open_service_account_admin
from tests.requirements import requirement
from tests.support.firebase import PROJECT
from tests.support.firebase.bridge import LOOKUP_SECONDS, Bridge
from tests.support.wait import wait_until


@requirement("access:firebase:link")
async def test_an_id_token_is_traded_for_an_access_token_of_our_own_user(bridge: Bridge) -> None:
    bridge.google.add("alice", email="alice@example.com")
    claims = await bridge.claims(await bridge.exchange(bridge.google.id_token("alice")))
    again = await bridge.claims(await bridge.exchange(bridge.google.id_token("alice")))
    assert claims["sub"] == again["sub"]
    assert claims["sub"].startswith("user_")
    assert claims["email"] == "alice@example.com"


@requirement("access:firebase:forgeries")
async def test_what_cannot_be_believed_is_refused_without_a_question_to_firebase(
    bridge: Bridge,
) -> None:
    google = bridge.google
    now = int(time.time())
    for token in (
        "nothing",
        google.id_token(exp=now - 60),
        google.id_token(aud="other-project"),
        google.cookie_signer.sign(google.claims()),
        google.account.sign(google.claims()),
    ):
        assert (await bridge.exchange(token)).code == "UNAUTHENTICATED"
    assert (await bridge.exchange("x" * 100_000)).code == "INVALID_ARGUMENT"
    assert google.calls["lookup"] == 0


@requirement("access:firebase:standing")
async def test_fifty_sign_ins_at_once_ask_firebase_once(bridge: Bridge) -> None:
    bridge.google.add("many")
    bridge.google.gate.clear()
    began = time.monotonic()
    sign_ins = [
        asyncio.create_task(bridge.exchange(bridge.google.id_token("many"))) for _ in range(50)
    ]
    await wait_until(lambda: bridge.google.calls["lookup"], 10, "the question")
    bridge.google.gate.set()
    assert {answer.status for answer in await asyncio.gather(*sign_ins)} == {200}
    # Zero, unless the machine is slow.
    lookups_expired = int((time.monotonic() - began) / LOOKUP_SECONDS)
    assert 1 <= bridge.google.calls["lookup"] <= 1 + lookups_expired


@requirement("access:firebase:standing")
async def test_a_disabled_user_is_refused_and_so_are_the_sessions_of_before(
    bridge: Bridge,
) -> None:
    user = bridge.google.add("disabled")
    before = await bridge.exchange(bridge.google.id_token("disabled"))
    assert before.status == 200
    user.disabled = True
    refused = await bridge.until_refused(bridge.google.id_token("disabled"))
    assert (refused.code, refused.message) == ("UNAUTHENTICATED", "The Firebase user is disabled.")
    assert (await bridge.refresh(before)).code == "UNAUTHENTICATED"
    user_id = (await bridge.claims(before))["sub"]
    assert ("sub", user_id) in [(r["claim"], r["value"]) for r in await bridge.revocations()]
    user.disabled = False
    await bridge.expire_look_ups()
    assert (await bridge.exchange(bridge.google.id_token("disabled"))).status == 200


@requirement("access:firebase:standing")
async def test_a_deleted_user_is_refused_and_so_are_the_sessions_of_before(bridge: Bridge) -> None:
    bridge.google.add("deleted")
    before = await bridge.exchange(bridge.google.id_token("deleted"))
    token = bridge.google.id_token("deleted")
    del bridge.google.users["deleted"]
    refused = await bridge.until_refused(token)
    assert (refused.code, refused.message) == ("UNAUTHENTICATED", "The Firebase user was deleted.")
    assert (await bridge.refresh(before)).code == "UNAUTHENTICATED"
    user_id = (await bridge.claims(before))["sub"]
    assert user_id in [revoked["value"] for revoked in await bridge.revocations()]


@requirement("access:firebase:standing")
async def test_a_revoked_sign_in_is_refused_and_a_later_one_is_not(bridge: Bridge) -> None:
    google = bridge.google
    google.add("revoked")
    hour_ago = int(time.time()) - 1800
    old = google.id_token("revoked", auth_time=hour_ago)
    session = await bridge.exchange(old)
    assert session.status == 200
    admin = open_service_account_admin(PROJECT, google.service_account(), f"{google.url}/v1")
    revoked_at = int(time.time()) - 60
    await asyncio.to_thread(admin.users.update_user, "revoked", valid_since=revoked_at)
    refused = await bridge.until_refused(old)
    assert refused.message == "The Firebase sign-in was revoked; sign in again."
    assert (await bridge.refresh(session)).code == "UNAUTHENTICATED"
    assert (await bridge.exchange(google.id_token("revoked"))).status == 200
    assert (await bridge.exchange(old)).code == "UNAUTHENTICATED"


@requirement("access:firebase:fail-closed")
async def test_while_firebase_is_away_its_last_word_counts_for_a_while_and_then_nobody_comes_in(
    bridge: Bridge,
) -> None:
    google = bridge.google
    google.add("patient")
    session = await bridge.exchange(google.id_token("patient"))
    google.down = {"lookup"}
    assert (await bridge.exchange(google.id_token("patient"))).status == 200
    refused = await bridge.until_refused(google.id_token("patient"))
    assert (refused.status, refused.code) == (503, "UNAVAILABLE")
    assert (await bridge.refresh(session)).code == "UNAVAILABLE"
    google.down = set()
    assert (await bridge.exchange(google.id_token("patient"))).status == 200
    assert (await bridge.refresh(session)).status == 200  # the outage has spent no token


@requirement("access:firebase:fail-closed")
@pytest.mark.timeout(180)
@pytest.mark.parametrize("away", ["lookup", "token"])
async def test_a_user_of_whom_nothing_is_known_needs_firebases_word(
    bridge: Bridge, away: str
) -> None:
    google = bridge.google
    google.add(away)
    google.down = {away}
    if away == "token":  # a new process holds no access token of Google's
        await asyncio.to_thread(bridge.stack.restart, "auth")

    async def asked() -> int:
        await bridge.exchange(google.id_token(away))
        return google.calls[away]

    await wait_until(asked, 20, "a question")
    answers = await asyncio.gather(*(bridge.exchange(google.id_token(away)) for _ in range(20)))
    assert {answer.code for answer in answers} == {"UNAVAILABLE"}
    google.down = set()
    assert (await bridge.exchange(google.id_token(away))).status == 200
