"""Sign-in, refresh and revocation of tokens on two replicas of the real app, and at a time of the test's own."""

import asyncio
import base64
import hmac
import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from services.auth.adapters.hashing import REFRESH_TOKENS, KeyedHash, random_base62
from services.auth.adapters.jose import JoseTokenSigner
from services.auth.adapters.postgres.sessions import MAX_CLOCK_ERROR, PostgresRevocations
from services.auth.adapters.postgres.signing import PostgresSigningKeys
from services.auth.domain.firebase import FirebaseTokenKind, FirebaseUser
from services.auth.domain.sessions import GRACE, LONGEST_ACCESS_TOKEN, SESSION_LIFE
from services.auth.domain.signing import LONGEST_TOKEN
from services.auth.service.tokens import TokenIssuer, TokenService
from services.cli.stack import Stack
from services.contracts.auth.tokens import (
    ExchangeTokenRequest,
    RefreshTokenRequest,
    SubjectTokenType,
    TokenResponse,
)
from services.kit.clock import utc_now
from services.kit.errors import ErrorCode, RpcError
from tests.component.auth.conftest import AuthApp, AuthApps, Person, by_app
from tests.component.auth.stores import KEY_SECRET, MovedClock, open_stores
from tests.component.auth.test_tokens import claims_of
from tests.requirements import requirement
from tests.support.failpoint_control import FailpointControl

SECOND = timedelta(seconds=1)
READ, WRITE = "conversations:read", "conversations:write"


async def token_service(app: AuthApp, method: str, **body: Any) -> tuple[int, Any]:
    return await by_app(app, "edge", "TokenService", method, **body)


async def revoked(app: AuthApp) -> set[tuple[str, str]]:
    status, listed = await token_service(app, "ListRevocations")
    assert status == 200
    return {(each["claim"], each["value"]) for each in listed["revocations"]}


class Directory:
    """`SignIn` of whoever says a name; a name that was thrown out is refused."""

    def __init__(self) -> None:
        self.thrown_out: set[str] = set()

    async def sign_in(self, kind: FirebaseTokenKind, token: str) -> FirebaseUser:
        return FirebaseUser(token, "uid", f"{token}@example.com", utc_now())

    async def recheck(self, user_id: str, authenticated_at: datetime) -> None:
        assert authenticated_at <= utc_now()
        if user_id in self.thrown_out:
            raise RpcError(ErrorCode.UNAUTHENTICATED, "out")


@dataclass
class Door:
    """Sign-in over the replicas' stores, at a time of the test's own."""

    sign_ins: TokenService
    clock: MovedClock
    directory: Directory
    revocations: PostgresRevocations

    async def sign_in(self, user_id: str, scope: str | None = None) -> TokenResponse:
        request = ExchangeTokenRequest(
            subject_token=user_id,
            subject_token_type=SubjectTokenType.FIREBASE_ID_TOKEN,
            scope=scope,
        )
        return await self.sign_ins.exchange(request)

    async def refresh(self, token: str | None) -> TokenResponse:
        assert token is not None
        return await self.sign_ins.refresh(RefreshTokenRequest(refresh_token=token))


@pytest.fixture
async def door(servers: Stack, replicas: list[AuthApp]) -> AsyncIterator[Door]:
    del replicas  # they have migrated the database and made the signing key
    clock = MovedClock(utc_now())
    async with open_stores(servers, clock) as stores:
        directory = Directory()
        issuer = TokenIssuer(
            keys=PostgresSigningKeys(stores.database),
            signer=JoseTokenSigner(KEY_SECRET),
            clock=clock,
            issuer="yocaso",
            audience="yocaso",
            max_age=timedelta(days=90),
            issues_local_tokens=True,
        )
        sign_ins = TokenService(
            database=stores.database,
            sessions=stores.sessions,
            revocations=stores.revocations,
            audit=stores.audit,
            keys=stores.keys,
            firebase=directory,
            issuer=issuer,
            digest=KeyedHash(KEY_SECRET, REFRESH_TOKENS),
            random_text=random_base62,
            clock=clock,
            access_token_life=timedelta(minutes=10),
        )
        yield Door(sign_ins, clock, directory, stores.revocations)


def a_user() -> str:
    return f"user_{secrets.token_hex(8)}"


def sid_of(token: str) -> str:
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["sid"]


async def test_nobody_is_given_a_token_of_an_organizations_keys(
    replicas: list[AuthApp], door: Door
) -> None:
    body = {"userId": "organization.acme", "email": "a@example.com"}
    status, refused = await replicas[0].call("IssueLocalToken", **body)
    assert (status, refused["error"]["code"]) == (400, "INVALID_ARGUMENT")
    with pytest.raises(RpcError) as nobody:
        await door.sign_in("organization.acme")
    assert nobody.value.code is ErrorCode.UNAUTHENTICATED


@requirement("access:tokens:refresh")
async def test_a_refresh_token_brings_the_next_pair_on_any_replica(
    replicas: list[AuthApp], door: Door
) -> None:
    user_id = a_user()
    token = await door.sign_in(user_id, scope=READ)
    sid = claims_of(token.access_token, await replicas[0].jwks())["sid"]
    refresh = token.refresh_token
    for app in (*replicas, *replicas):
        status, after = await token_service(app, "RefreshToken", refreshToken=refresh)
        assert (status, after["scope"], after["expiresIn"]) == (200, READ, 600)
        claims = claims_of(after["accessToken"], await replicas[0].jwks())
        assert (claims["sub"], claims["sid"], claims["scope"]) == (user_id, sid, READ)
        assert after["refreshToken"] != refresh
        refresh = after["refreshToken"]


@requirement("access:tokens:reuse")
async def test_a_token_that_was_used_before_ends_the_session(
    replicas: list[AuthApp], door: Door
) -> None:
    user_id = a_user()
    stolen = await door.sign_in(user_id)
    second = await door.refresh(stolen.refresh_token)
    third = await door.refresh(second.refresh_token)
    for token in (stolen, third, second):
        status, refused = await token_service(
            replicas[0], "RefreshToken", refreshToken=token.refresh_token
        )
        assert (status, refused["error"]["code"]) == (401, "UNAUTHENTICATED")
    assert ("sid", sid_of(third.access_token)) in await revoked(replicas[1])
    _, log = await Person(replicas[1], user_id).call("AuditService", "ListAuditEvents")
    assert [event["action"] for event in log["events"]] == ["TOKEN_REUSED", "TOKEN_EXCHANGED"]


@requirement("access:tokens:reuse")
async def test_a_client_that_lost_the_reply_is_let_in_once_more_for_10_s(door: Door) -> None:
    first = await door.sign_in(a_user())
    unseen = await door.refresh(first.refresh_token)
    door.clock.now += GRACE - SECOND
    again = await door.refresh(first.refresh_token)
    after = await door.refresh(again.refresh_token)
    with pytest.raises(RpcError):
        await door.refresh(unseen.refresh_token)
    with pytest.raises(RpcError):
        await door.refresh(after.refresh_token)

    late = await door.sign_in(a_user())
    await door.refresh(late.refresh_token)
    door.clock.now += GRACE
    with pytest.raises(RpcError) as refused:
        await door.refresh(late.refresh_token)
    assert refused.value.code is ErrorCode.UNAUTHENTICATED


@requirement("access:tokens:reuse")
async def test_of_two_refreshes_at_once_one_goes_on_and_the_other_is_reuse(
    replicas: list[AuthApp], door: Door
) -> None:
    first = await door.sign_in(a_user())
    pairs = await asyncio.gather(
        *(token_service(app, "RefreshToken", refreshToken=first.refresh_token) for app in replicas)
    )
    assert [status for status, _ in pairs] == [200, 200]
    good = 0
    for _, pair in pairs:
        status, _ = await token_service(
            replicas[0], "RefreshToken", refreshToken=pair["refreshToken"]
        )
        good += status == 200
    assert good <= 1
    assert ("sid", sid_of(first.access_token)) in await revoked(replicas[0])


@requirement("access:tokens:reuse")
async def test_of_many_refreshes_at_once_no_two_go_on(replicas: list[AuthApp], door: Door) -> None:
    first = await door.sign_in(a_user())
    answers = await asyncio.gather(
        *(
            token_service(replicas[n % 2], "RefreshToken", refreshToken=first.refresh_token)
            for n in range(8)
        )
    )
    assert [status for status, _ in answers].count(200) == 2  # the one, and the one once more
    for status, pair in answers:
        if status == 200:
            again = await token_service(
                replicas[0], "RefreshToken", refreshToken=pair["refreshToken"]
            )
            assert again[0] == 401


@requirement("access:tokens:refresh")
async def test_a_refresh_whose_reply_was_lost_to_a_kill_is_repeated_elsewhere(
    auth_apps: AuthApps, replicas: list[AuthApp], door: Door, tmp_path: Path
) -> None:
    token = (await door.sign_in(a_user())).refresh_token
    with FailpointControl(tmp_path / "failpoints", "auth.session_refreshed:1:kill") as control:
        app = auth_apps.start(control.environment)
        await app.until_ready()
        call = asyncio.create_task(token_service(app, "RefreshToken", refreshToken=token))
        await control.wait_for("auth.session_refreshed")
        with pytest.raises(aiohttp.ClientError):
            await call
    status, after = await token_service(replicas[0], "RefreshToken", refreshToken=token)
    assert status == 200
    refresh = after["refreshToken"]
    assert (await token_service(replicas[1], "RefreshToken", refreshToken=refresh))[0] == 200


@requirement("access:tokens:refresh")
async def test_a_session_ends_after_30_days_however_often_it_was_refreshed(door: Door) -> None:
    token = await door.sign_in(a_user())
    door.clock.now += SESSION_LIFE - timedelta(hours=1)
    token = await door.refresh(token.refresh_token)
    door.clock.now += timedelta(hours=1)
    with pytest.raises(RpcError) as refused:
        await door.refresh(token.refresh_token)
    assert refused.value.code is ErrorCode.UNAUTHENTICATED


async def test_somebody_who_was_thrown_out_refreshes_nothing(door: Door) -> None:
    token = await door.sign_in("eve")
    door.directory.thrown_out.add("eve")
    with pytest.raises(RpcError) as refused:
        await door.refresh(token.refresh_token)
    assert refused.value.code is ErrorCode.UNAUTHENTICATED
    door.directory.thrown_out.clear()
    await door.refresh(token.refresh_token)


@requirement("access:tokens:revoke")
async def test_signing_out_by_either_token_ends_the_session(
    replicas: list[AuthApp], door: Door
) -> None:
    for part in ("refresh_token", "access_token"):
        user_id = a_user()
        token = await door.sign_in(user_id)
        for _ in range(2):
            body = {"token": getattr(token, part)}
            assert await token_service(replicas[0], "RevokeToken", **body) == (200, {})
        assert ("sid", sid_of(token.access_token)) in await revoked(replicas[1])
        refresh = {"refreshToken": token.refresh_token}
        assert (await token_service(replicas[1], "RefreshToken", **refresh))[0] == 401
        _, log = await Person(replicas[1], user_id).call("AuditService", "ListAuditEvents")
        actions = [event["action"] for event in log["events"]]
        assert actions == ["TOKEN_REVOKED", "TOKEN_EXCHANGED"]


@requirement("access:tokens:revoke")
async def test_a_token_that_is_not_ours_ends_nothing_and_is_no_error(
    replicas: list[AuthApp], door: Door
) -> None:
    token = await door.sign_in(a_user())
    head, payload, signature = token.access_token.split(".")
    claims = {"iss": "yocaso", "sid": sid_of(token.access_token)}
    [public, *_] = (await replicas[0].jwks())["keys"]
    own = RSAKey.generate_key(2048, {"kid": public["kid"]})
    none, by_mac = (
        base64.urlsafe_b64encode(json.dumps({"alg": alg, "kid": public["kid"]}).encode())
        .decode()
        .rstrip("=")
        for alg in ("none", "HS256")
    )
    pem = RSAKey.import_key(public).as_pem(private=False)
    mac = hmac.digest(pem, f"{by_mac}.{payload}".encode(), "sha256")
    forged = (
        f"{none}.{payload}.",
        f"{by_mac}.{payload}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}",
        f"{head}.{payload}.{signature[::-1]}",
        jwt.encode({"alg": "RS256", "kid": public["kid"]}, claims, own),
        "nonsense",
        (token.refresh_token or "")[:-1] + "~",
    )
    for each in forged:
        assert await token_service(replicas[0], "RevokeToken", token=each) == (200, {})
    assert claims["sid"] not in {value for _, value in await revoked(replicas[0])}
    exchange = {
        "subjectToken": (await Person(replicas[0], a_user()).key())["secret"],
        "subjectTokenType": SubjectTokenType.API_KEY,
    }
    _, of_a_key = await token_service(replicas[0], "ExchangeToken", **exchange)
    body = {"token": of_a_key["accessToken"]}
    assert await token_service(replicas[0], "RevokeToken", **body) == (200, {})
    await door.refresh(token.refresh_token)


@requirement("access:tokens:revoke")
async def test_revoking_a_user_ends_every_session_of_the_user(
    replicas: list[AuthApp], door: Door
) -> None:
    user_id = a_user()
    tokens = [await door.sign_in(user_id) for _ in range(2)]
    other = await door.sign_in(a_user())
    for _ in range(2):
        await door.revocations.revoke(claim="sub", value=user_id)
    assert ("sub", user_id) in await revoked(replicas[0])
    for token in tokens:
        with pytest.raises(RpcError):
            await door.refresh(token.refresh_token)
    await door.refresh(other.refresh_token)


@requirement("access:tokens:revoke")
async def test_a_revocation_is_listed_until_its_last_token_is_over(door: Door) -> None:
    user_id, key_id = a_user(), f"key_{secrets.token_hex(16)}"
    await door.revocations.revoke("sub", user_id)
    await door.revocations.revoke("key_id", key_id)

    async def listed() -> set[str]:
        found = {each.value for each in await door.revocations.all()}
        return found & {user_id, key_id}

    assert await listed() == {user_id, key_id}
    door.clock.now += LONGEST_ACCESS_TOKEN + MAX_CLOCK_ERROR
    assert await listed() == {user_id}
    door.clock.now += LONGEST_TOKEN - LONGEST_ACCESS_TOKEN
    assert await listed() == set()


async def test_only_the_edge_lists_what_was_revoked(replicas: list[AuthApp]) -> None:
    status, refused = await by_app(replicas[0], "llm", "TokenService", "ListRevocations")
    assert (status, refused["error"]["code"]) == (403, "PERMISSION_DENIED")


async def test_what_is_long_over_is_forgotten(door: Door) -> None:
    token = await door.sign_in(a_user())
    door.clock.now += SESSION_LIFE
    await door.sign_ins.purge()
    door.clock.now -= SESSION_LIFE
    with pytest.raises(RpcError) as refused:
        await door.refresh(token.refresh_token)
    assert refused.value.code is ErrorCode.UNAUTHENTICATED
