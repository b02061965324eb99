"""Two replicas of llm, and clients of one of them."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

from services.contracts.apps import EDGE, USER_SCOPES
from services.kit.contract import RpcService
from tests.chaos.faults import run_replica, until_ready
from tests.support.platform import Client, Platform

FIRST, SECOND = REPLICAS = ("llm", "llm-2")


@dataclass
class ReplicaClient(Client):
    """Calls one replica directly, as the edge's sidecar does."""

    identity: dict[str, str] = field(default_factory=dict)

    def headers(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        return {**self.identity, **self.defaults, **(extra or {})}

    def url_of(self, service: RpcService, method: str) -> str:
        """The app's own URL of a method."""
        return self.url + service[method].path


@asynccontextmanager
async def client_of(platform: Platform, replica: str, user: str) -> AsyncIterator[ReplicaClient]:
    identity = {
        "dapr-api-token": platform.stack.app_token(replica),
        "dapr-caller-app-id": EDGE.id,
        "x-user-id": user,
        "x-scopes": " ".join(USER_SCOPES),
    }
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=170)) as session:
        url = platform.stack.url(replica)
        yield ReplicaClient(url, "", session, identity=identity)


async def start_second(platform: Platform) -> None:
    """Run a second replica with the settings of the first."""
    settings = platform.stack.spec(FIRST).env.items()
    env = {name: value for name, value in settings if name.startswith("LLM_")}
    await run_replica(platform, FIRST, env)
    await until_ready(platform, *REPLICAS, *(f"{name}-daprd" for name in REPLICAS))
