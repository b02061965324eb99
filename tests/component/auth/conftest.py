"""The auth app as its own process, on a real Postgres."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import pytest

from services.cli.stack import Stack
from services.cli.stack.ports import require_free
from services.contracts.apps import USER_SCOPES
from services.kit.access.limits import FALLBACK_SECONDS
from services.kit.clock import utc_now
from tests.component.conftest import OFFSET
from tests.support.firebase.bridge import Bridge, open_bridge
from tests.support.port_offsets import PORTS
from tests.support.wait import wait_until

ROOT = Path(__file__).parents[3]
START_SECONDS = 120
"""A start costs some 3 s of CPU, which a busy machine stretches."""
TOKEN = "a-token-of-the-sidecar"
V = TypeVar("V")
BY_AUTH = {"dapr-api-token": TOKEN, "dapr-caller-app-id": "auth"}


@dataclass
class AuthApp:
    """A running auth app, called as its sidecar calls it."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def call(self, method: str, **body: Any) -> tuple[int, Any]:
        return await self.ask("TokenService", method, body)

    async def ask(
        self, service: str, method: str, body: Any, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        path = f"{self.url}/yocaso.auth.v1.{service}/{method}"
        async with (
            aiohttp.ClientSession() as session,
            session.post(path, json=body, headers={**BY_AUTH, **(headers or {})}) as reply,
        ):
            return reply.status, await reply.json()

    async def jwks(self) -> dict[str, Any]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.url}/.well-known/jwks.json") as reply,
        ):
            assert reply.status == 200
            return await reply.json()

    async def until_ready(self) -> "AuthApp":
        async def ready() -> bool:
            assert self.process.poll() is None, f"auth ended; see {self.log}"
            try:
                async with (
                    aiohttp.ClientSession() as session,
                    session.get(f"{self.url}/healthz") as reply,
                ):
                    return reply.status == 204
            except aiohttp.ClientError:
                return False

        await wait_until(ready, START_SECONDS, "auth to answer")
        return self

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(START_SECONDS)


class AuthApps:
    """Starts auth apps on one database; stops them all."""

    def __init__(
        self, servers: Mapping[str, str], folder: Path, first_port: int = 7101 + OFFSET
    ) -> None:
        self._servers = servers
        self._folder = folder
        self._first_port = first_port
        self._running: list[AuthApp] = []

    def start(self, env: Mapping[str, str] | None = None) -> AuthApp:
        port = self._first_port + 10 * len(self._running)
        require_free([("auth", port)])
        log = self._folder / f"auth-{port}.log"
        variables = {
            **os.environ,
            "APP_PORT": str(port),
            "APP_API_TOKEN": TOKEN,
            **self._servers,
            "AUTH_KEY_SECRET": "a secret of at least thirty-two characters",
            **(env or {}),
        }
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "services.kit.http.serve", "services.auth.app"],
                cwd=ROOT,
                env=variables,
                stdout=output,
                stderr=output,
            )
        app = AuthApp(port, process, log)
        self._running.append(app)
        return app

    def stop(self) -> None:
        for app in self._running:
            app.stop()


@pytest.fixture
def auth_apps(servers: Stack, tmp_path: Path) -> Iterator[AuthApps]:
    """Starts auth apps; they end with the test."""
    apps = AuthApps(servers.environment.for_app("auth"), tmp_path)
    yield apps
    apps.stop()


@pytest.fixture(scope="session")
async def replicas(
    servers: Stack, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[list[AuthApp]]:
    """Two auth apps that stay up; nothing is between them but the stores."""
    folder = tmp_path_factory.mktemp("replicas")
    apps = AuthApps(servers.environment.for_app("auth"), folder, 7201 + OFFSET)
    started = [apps.start(), apps.start()]
    for app in started:
        await app.until_ready()
    yield started
    apps.stop()


@pytest.fixture(scope="session")
async def running_bridge(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bridge]:
    folder = tmp_path_factory.mktemp("firebase")
    async with open_bridge(folder, PORTS["firebase"]) as bridge:
        yield bridge


@pytest.fixture
def bridge(running_bridge: Bridge) -> Bridge:
    """The auth app beside a fake of Google that knows nobody."""
    running_bridge.google.reset()
    return running_bridge


@dataclass(frozen=True)
class Person:
    """Somebody who is signed in, as the edge vouches."""

    app: AuthApp
    user_id: str
    scopes: tuple[str, ...] = USER_SCOPES
    key_id: str = ""
    calling_app: str = "edge"

    async def call(self, service: str, method: str, **body: Any) -> tuple[int, Any]:
        headers = {
            "dapr-caller-app-id": self.calling_app,
            "x-user-id": self.user_id,
            "x-user-email": f"{self.user_id}@example.com",
            "x-scopes": " ".join(self.scopes),
            **({"x-key-id": self.key_id} if self.key_id else {}),
        }
        return await self.app.ask(service, method, body, headers)

    async def key(self, **fields: Any) -> dict[str, Any]:
        body = {"name": "ci", "scopes": ["conversations:read", "conversations:write"], **fields}
        status, made = await self.call("ApiKeyService", "CreateApiKey", **body)
        assert status == 200, made
        return made


async def by_app(
    app: AuthApp, caller: str, service: str, method: str, **body: Any
) -> tuple[int, Any]:
    return await app.ask(service, method, body, {"dapr-caller-app-id": caller})


async def verify(app: AuthApp, secret: str, **fields: Any) -> dict[str, Any]:
    """What the edge is told of a key."""
    body = {"secret": secret, "cost": 0, **fields}
    status, answer = await by_app(app, "edge", "ApiKeyService", "VerifyApiKey", **body)
    assert status == 200, answer
    return answer


async def counted_together(apps: Sequence[AuthApp], attempt: Callable[[], Awaitable[V]]) -> V:
    """The first outcome during which no app counted calls by itself, as each does for a while when Valkey is slow."""
    while True:
        since = utc_now() - timedelta(seconds=FALLBACK_SECONDS)
        found = await attempt()
        if not any(counted_alone(app, since) for app in apps):
            return found


def counted_alone(app: AuthApp, since: datetime) -> bool:
    said = (
        line for line in app.log.read_text().splitlines() if "limits.valkey_unavailable" in line
    )
    return any(datetime.fromisoformat(json.loads(line)["timestamp"]) >= since for line in said)


async def administer(app: AuthApp, user_id: str, organization_id: str) -> None:
    """Make somebody an admin of an organization."""
    a_tuple = {
        "subject": f"user:{user_id}",
        "relation": "admin",
        "object": f"organization:{organization_id}",
    }
    status, answer = await by_app(
        app, "llm", "AuthorizationService", "WriteTuples", writes=[a_tuple]
    )
    assert status == 200, answer
