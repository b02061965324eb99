"""Runs the auth app with its sidecar and stores beside a fake of Google, and calls it."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import asyncpg
from joserfc import jwt
from joserfc.jwk import KeySet

from services.cli.stack.stack import Stack
from services.contracts.apps import EDGE
from services.contracts.auth.tokens import TOKEN_SERVICE, SubjectTokenType
from tests.support.firebase.server import FirebaseServer
from tests.support.port_offsets import offset_of
from tests.support.wait import wait_until

OFFSET: Final = offset_of("firebase")
LOOKUP_SECONDS: Final = 5
"""How long auth trusts a look-up of a user at Firebase."""
LONG_AGO: Final = """
    UPDATE dapr.state SET value = convert_to(regexp_replace(convert_from(value, 'UTF8'),
        '("looked_up_at": ?)"[^"]*"', '\\1"2000-01-01T00:00:00Z"'), 'UTF8')
    WHERE key LIKE '%FirebaseBridgeActor/%' RETURNING split_part(key, '/', 2)
"""
TEMPLATE: Final = Path(__file__).parent / "dapr.yaml"
ID_TOKEN: Final = SubjectTokenType.FIREBASE_ID_TOKEN
COOKIE: Final = SubjectTokenType.FIREBASE_SESSION_COOKIE


@dataclass(frozen=True)
class Answer:
    """A response of auth."""

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
    """The auth app, called as its sidecar delivers calls of the edge."""

    stack: Stack
    google: FirebaseServer
    session: aiohttp.ClientSession

    async def call(
        self, method: str, headers: dict[str, str] | None = None, /, **body: Any
    ) -> Answer:
        token = self.stack.app_token("auth")
        sent = {"dapr-api-token": token, "dapr-caller-app-id": EDGE.id, **(headers or {})}
        url = self.stack.url("auth") + TOKEN_SERVICE[method].path
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

    async def expire_look_ups(self) -> None:
        """Make the last look-up of every user old, so that auth asks Firebase again."""
        connection = await asyncpg.connect(self.stack.database_url())
        ids = {row[0] for row in await connection.fetch(LONG_AGO)}
        await connection.close()
        headers = {"dapr-api-token": self.stack.app_token("auth")}
        for user_id in ids:  # an active actor would go on with what it has read
            url = f"{self.stack.url('auth')}/actors/FirebaseBridgeActor/{user_id}"
            async with self.session.delete(url, headers=headers) as reply:
                assert reply.status in (200, 500), await reply.text()  # 500: it is not active

    async def until_refused(self, token: str) -> Answer:
        """The refusal of a token, as soon as the cached look-up has expired."""
        await self.expire_look_ups()

        async def refused() -> Answer | None:
            answer = await self.exchange(token)
            return answer if answer.status != 200 else None

        return await wait_until(refused, LOOKUP_SECONDS + 5, "a refusal")

    async def restart(self, env: Mapping[str, str] | None = None) -> None:
        """Kill auth, start it with `env` added, and wait until it answers."""
        if self.stack.pid("auth") is not None:
            await asyncio.to_thread(self.stack.wait_exited, "auth", self.stack.kill("auth"))
        await asyncio.to_thread(self.stack.restart, "auth", env=env)
        await self.until_answering()

    async def until_answering(self, probe: "Probe | None" = None) -> None:
        """Wait until a sign-in succeeds."""

        async def answers() -> bool:
            try:
                return (await self.exchange(await (probe or _probe)(self))).status == 200
            except aiohttp.ClientError:
                return False

        await wait_until(answers, 60, "a sign-in to succeed")


Probe = Callable[[Bridge], Awaitable[str]]
"""Makes an ID token that auth accepts."""


async def _probe(bridge: Bridge) -> str:
    """A token of a new user each time, so that no look-up is cached."""
    uid = f"probe-{uuid.uuid4().hex}"
    bridge.google.add(uid)
    return bridge.google.id_token(uid)


@asynccontextmanager
async def open_bridge(
    folder: Path,
    google_port: int,
    env: Mapping[str, str] | None = None,
    *,
    probe: Probe | None = None,
) -> AsyncIterator[Bridge]:
    """Start everything and wait for a first sign-in."""
    async with FirebaseServer(google_port) as google, aiohttp.ClientSession() as session:
        variables = {
            **google.environment(),
            "AUTH_FIREBASE_REVOCATION_SECONDS": str(LOOKUP_SECONDS),
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
