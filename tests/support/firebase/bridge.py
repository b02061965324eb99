"""The auth app with its sidecar and stores, a wire-true Google beside it, and the way to call it."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
from joserfc import jwt
from joserfc.jwk import KeySet

from services.cli.stack.stack import Stack
from services.contracts.auth.tokens import TOKEN_SERVICE
from tests.support.firebase.server import FirebaseServer
from tests.support.wait import wait_until

OFFSET: Final = 21_000
BELIEVED: Final = 5
TEMPLATE: Final = Path(__file__).parent / "dapr.yaml"
ID_TOKEN: Final = "urn:ietf:params:oauth:token-type:id_token"
COOKIE: Final = "urn:yocaso:params:oauth:token-type:firebase-session-cookie"


@dataclass(frozen=True)
class Answer:
    """What auth said."""

    status: int
    body: Any

    @property
    def code(self) -> str:
        return self.body["error"]["code"] if self.status != 200 else "OK"

    @property
    def message(self) -> str:
        return self.body["error"]["message"]


@dataclass(frozen=True)
class Bridge:
    """The auth app, called as its sidecar calls it for the edge."""

    stack: Stack
    google: FirebaseServer
    session: aiohttp.ClientSession

    async def call(
        self, method: str, headers: dict[str, str] | None = None, /, **body: Any
    ) -> Answer:
        token = self.stack.app_token("auth")
        sent = {"dapr-api-token": token, "dapr-caller-app-id": "edge", **(headers or {})}
        url = f"{self.stack.url('auth')}/yocaso.auth.v1.TokenService/{method}"
        async with self.session.post(url, json=body, headers=sent) as reply:
            return Answer(reply.status, await reply.json())

    async def exchange(self, token: str, kind: str = ID_TOKEN) -> Answer:
        return await self.call("ExchangeToken", subjectToken=token, subjectTokenType=kind)

    async def refresh(self, answer: Answer) -> Answer:
        return await self.call("RefreshToken", refreshToken=answer.body["refreshToken"])

    async def custom_token(self, user_id: str, **headers: str) -> Answer:
        signed_in = {"x-user-id": user_id, "x-scopes": "account:write", **headers}
        return await self.call("CreateCustomToken", signed_in)

    async def claims(self, answer: Answer) -> dict[str, Any]:
        assert answer.status == 200, answer
        async with self.session.get(f"{self.stack.url('auth')}/.well-known/jwks.json") as keys:
            published = KeySet.import_key_set(await keys.json())
        return dict(jwt.decode(answer.body["accessToken"], published, algorithms=["RS256"]).claims)

    async def user_id(self, uid: str) -> str:
        return (await self.claims(await self.exchange(self.google.id_token(uid))))["sub"]

    async def revocations(self) -> list[Any]:
        listed = await self.call("ListRevocations")
        return [] if listed.status != 200 else listed.body["revocations"]

    async def until_refused(self, token: str) -> Answer:
        """The first refusal, when Firebase's last word is over."""

        async def refused() -> Answer | None:
            answer = await self.exchange(token)
            return answer if answer.status != 200 else None

        return await wait_until(refused, BELIEVED + 5, "a refusal")

    async def restart(self, env: Mapping[str, str] | None = None) -> None:
        """Kill auth and start it, from now on with more environment if given; wait until it answers."""
        if self.stack.process("auth") is not None:
            await asyncio.to_thread(self.stack.wait_gone, "auth", self.stack.kill("auth"))
        await asyncio.to_thread(self.stack.restart, "auth", env=env)
        await self.until_answering()

    async def until_answering(self, probe: "Probe | None" = None) -> None:
        """Wait until a sign-in is answered."""

        async def answers() -> bool:
            try:
                return (await self.exchange(await (probe or _probe)(self))).status == 200
            except aiohttp.ClientError:
                return False

        await wait_until(answers, 60, "a sign-in to be answered")


Probe = Callable[[Bridge], Awaitable[str]]
"""Gives an ID token of somebody who may come in."""


async def _probe(bridge: Bridge) -> str:
    """Somebody new each time, so that Firebase is asked about each of them."""
    uid = f"probe-{uuid.uuid4().hex}"
    bridge.google.add(uid)
    return bridge.google.id_token(uid)


async def until_welcome(edge_url: str, google: FirebaseServer) -> None:
    """Wait until somebody of Firebase is let in at the edge: a new process takes a while to ask its first question."""
    google.add("probe")
    asked = {"subjectToken": google.id_token("probe"), "subjectTokenType": ID_TOKEN}
    url = edge_url + TOKEN_SERVICE["ExchangeToken"].edge_path

    async with aiohttp.ClientSession() as session:

        async def welcome() -> bool:
            async with session.post(url, json=asked) as reply:
                return reply.status == 200

        await wait_until(welcome, 60, "a sign-in to be answered", every=0.1)


@asynccontextmanager
async def open_bridge(
    folder: Path,
    google_port: int,
    env: Mapping[str, str] | None = None,
    *,
    probe: Probe | None = None,
) -> AsyncIterator[Bridge]:
    """Everything started, and a first sign-in answered."""
    async with FirebaseServer(google_port) as google, aiohttp.ClientSession() as session:
        variables = {
            **google.environment(),
            "AUTH_FIREBASE_REVOCATION_SECONDS": str(BELIEVED),
            **(env or {}),
        }
        stack = Stack(
            folder,
            port_offset=OFFSET,
            dapr_yaml=TEMPLATE,
            env={"auth": variables},
            unsupervised={"auth"},
        )
        with stack:
            bridge = Bridge(stack, google, session)
            await bridge.until_answering(probe)
            yield bridge
