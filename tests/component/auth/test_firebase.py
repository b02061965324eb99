"""Sign-in by Firebase: the real auth app with its sidecar and stores, a wire-true Google, the official SDK."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from services.cli.stack.stack import Stack
from tests.component.auth.test_tokens import claims_of
from tests.support.firebase import FirebaseServer
from tests.support.wait import wait_until

OFFSET = 21_000
FIREBASE_PORT = 21_900
ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"
SESSION_COOKIE = "urn:yocaso:params:oauth:token-type:firebase-session-cookie"
TEMPLATE = Path(__file__).parents[2] / "support" / "firebase" / "dapr.yaml"


@dataclass
class Bridge:
    """The auth app, called as its sidecar calls it for the edge."""

    stack: Stack
    google: FirebaseServer
    session: aiohttp.ClientSession

    async def call(self, method: str, user: str = "", /, **body: Any) -> tuple[int, Any]:
        token = self.stack.spec("auth").env["APP_API_TOKEN"]
        headers = {"dapr-api-token": token, "dapr-caller-app-id": "edge"}
        if user:
            headers |= {"x-user-id": user, "x-scopes": "account:write"}
        url = f"{self.stack.url('auth')}/yocaso.auth.v1.TokenService/{method}"
        async with self.session.post(url, json=body, headers=headers) as reply:
            return reply.status, await reply.json()

    async def exchange(self, token: str, kind: str = ID_TOKEN) -> tuple[int, Any]:
        return await self.call("ExchangeToken", subjectToken=token, subjectTokenType=kind)


@pytest.fixture(scope="module")
async def google() -> AsyncIterator[FirebaseServer]:
    async with FirebaseServer(FIREBASE_PORT) as server:
        yield server


@pytest.fixture(scope="module")
async def bridge(
    google: FirebaseServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Bridge]:
    stack = Stack(
        tmp_path_factory.mktemp("firebase"),
        port_offset=OFFSET,
        dapr_yaml=TEMPLATE,
        env={"auth": {**google.environment(), "AUTH_FIREBASE_REVOCATION_SECONDS": "2"}},
        unsupervised={"auth"},
    )
    with stack:
        async with aiohttp.ClientSession() as session:
            bridge = Bridge(stack, google, session)

            async def answers() -> bool:
                google.add("probe")
                return (await bridge.exchange(google.id_token("probe")))[0] == 200

            await wait_until(answers, 30, "a sign-in to be answered")
            yield bridge


async def test_an_id_token_is_traded_for_an_access_token(bridge: Bridge) -> None:
    bridge.google.add("alice")
    status, reply = await bridge.exchange(bridge.google.id_token("alice"))
    assert status == 200, reply
    async with bridge.session.get(f"{bridge.stack.url('auth')}/.well-known/jwks.json") as keys:
        claims = claims_of(reply["accessToken"], await keys.json())
    assert claims["sub"].startswith("user_")
    assert claims["email"] == "alice@example.com"
