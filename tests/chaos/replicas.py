"""Two replicas of llm, and clients that choose which of them they talk to."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

from services.contracts.apps import USER_SCOPES
from services.kit.contract import RpcService
from tests.chaos.faults import restart, running
from tests.support.platform import Client, Platform

FIRST, SECOND = REPLICAS = ("llm", "llm-2")


@dataclass
class ReplicaClient(Client):
    """A user whose calls reach one replica, as the edge's sidecar would deliver them."""

    identity: dict[str, str] = field(default_factory=dict)

    def headers(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """The headers of a call."""
        return {**self.identity, **self.defaults, **(extra or {})}

    def url_of(self, service: RpcService, method: str) -> str:
        """The app's own URL of a method."""
        return self.url + service[method].path


@asynccontextmanager
async def client_of(platform: Platform, replica: str, user: str) -> AsyncIterator[ReplicaClient]:
    """A client of one replica in a user's name."""
    identity = {
        "dapr-api-token": platform.stack.app_token(replica),
        "dapr-caller-app-id": "edge",
        "x-user-id": user,
        "x-scopes": " ".join(USER_SCOPES),
    }
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=170)) as session:
        url = platform.stack.url(replica)
        yield ReplicaClient(url, "", session, identity=identity)


async def start_second(platform: Platform) -> None:
    """Both replicas run and answer, with the same settings."""
    settings = platform.stack.spec(FIRST).env.items()
    env = {name: value for name, value in settings if name.startswith("LLM_")}
    if SECOND in platform.stack.apps:
        await asyncio.to_thread(platform.stack.supervisor.start, f"{SECOND}-daprd")
        await restart(platform, SECOND, env)
    else:
        await asyncio.to_thread(platform.stack.add_replica, FIRST, 2, env=env)
    await running(platform, *REPLICAS, *(f"{name}-daprd" for name in REPLICAS))


async def stop_second(platform: Platform) -> None:
    """Only the first replica is left."""
    for name in (SECOND, f"{SECOND}-daprd"):
        await asyncio.to_thread(platform.stack.halt, name)
