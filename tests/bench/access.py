"""What authentication and authorization add to a call of a method that does nothing.

The edge calls the app without a sidecar, so that the noise of other hops does not hide the difference.
"""

import asyncio
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp

from services.codegen.edge import configuration
from services.contracts.apps import APPS
from services.contracts.auth.authorization import OWNER
from services.contracts.auth.keys import API_KEY_SERVICE
from services.contracts.llm.conversations import CONVERSATIONS_READ
from tests.bench.access_app import APP as BENCH_APP
from tests.bench.access_app import BENCH_SERVICE
from tests.bench.figures import added, emit, paired
from tests.support.platform import ROOT, Client, Platform
from tests.support.port_offsets import offset_of
from tests.support.wait import wait_until

OFFSET: Final = offset_of("bench of an app")
APP_PORT: Final = 7191 + OFFSET
USER: Final = "bench-access"
ROUNDS: Final = 600
COLD_ROUNDS: Final = 200
WRITE_AT_ONCE: Final = 50

Call = Callable[[int], Awaitable[None]]


def measure(state: Path) -> None:
    """Print what each kind of access adds at p50 and p99 to a public method."""
    config = state.with_suffix(".json")
    config.write_text(json.dumps(_edge_config()))
    platform = Platform(state, OFFSET, env={"edge": {"EDGE_CONFIG": str(config)}})
    platform.start()
    try:
        with _app(platform):
            asyncio.run(_measure(platform))
    finally:
        platform.stop()


def _edge_config() -> dict[str, Any]:
    """The edge's configuration with routes to the bench's app."""
    config = configuration((*APPS, BENCH_APP))
    for endpoint in config["endpoints"]:
        for backend in endpoint["backend"]:
            own = backend["url_pattern"].partition("/v1.0/invoke/bench/method")[2]
            if own:
                backend |= {"url_pattern": own, "host": [f"http://127.0.0.1:{APP_PORT}"]}
    return config


@contextmanager
def _app(platform: Platform) -> Iterator[None]:
    stack = platform.stack
    sidecar = stack.url("llm-daprd").rpartition(":")[2]
    env = {
        **os.environ,
        "APP_PORT": str(APP_PORT),
        "APP_API_TOKEN": stack.api_token("edge"),
        "DAPR_HTTP_PORT": sidecar,
        "DAPR_API_TOKEN": stack.api_token("llm"),
        "YOCASO_VALKEY_URL": stack.environment.valkey_url,
        "YOCASO_RATE_USER": "1000000",
    }
    command = [sys.executable, "-m", "services.kit.http.serve", "tests.bench.access_app"]
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


async def _measure(platform: Platform) -> None:
    async with platform.client(USER) as client:
        target = await client.conversation()
        bench = _Bench(platform, client, target)
        await wait_until(bench.answers, 20, "the bench's app to answer")
        await bench.warm()
        await bench.compare("cached", ROUNDS, bench.cached_calls())
        await bench.compare("not cached", COLD_ROUNDS, bench.uncached_calls())


class _Bench:
    def __init__(self, platform: Platform, client: Client, target: str) -> None:
        self._client = client
        self._platform = platform
        self._target = target
        self._unseen: list[str] = []
        self._bearer = {"authorization": f"Bearer {client.token}"}
        self._keys: list[str] = []

    async def answers(self) -> bool:
        try:
            await self._call("Open", {})
        except (AssertionError, aiohttp.ClientError):
            return False
        return True

    async def warm(self) -> None:
        self._keys = [await self._new_key() for _ in range(COLD_ROUNDS + 1)]
        self._unseen = [f"conv_{uuid.uuid4().hex}" for _ in range(2 * COLD_ROUNDS)]
        for first in range(0, len(self._unseen), WRITE_AT_ONCE):
            await self._own(self._unseen[first : first + WRITE_AT_ONCE])
        for call in (self._open, *self.cached_calls().values()):
            for number in range(100):
                await call(number)

    def cached_calls(self) -> dict[str, Call]:
        key = {"x-api-key": self._keys[0]}
        return {
            "access token, scope": lambda _: self._call("Scoped", self._bearer),
            "access token, scope, object": lambda _: self._call("Owned", self._bearer),
            "API key, scope, object": lambda _: self._call("Owned", key),
        }

    def uncached_calls(self) -> dict[str, Call]:
        async def check(number: int) -> None:
            await self._call("Owned", self._bearer, self._unseen[2 * number])

        async def key_and_check(number: int) -> None:
            key = {"x-api-key": self._keys[1 + number]}
            await self._call("Owned", key, self._unseen[2 * number + 1])

        return {
            "access token, scope, object (the first check of an object)": check,
            "API key, scope, object (the first of key and object)": key_and_check,
        }

    async def compare(self, kind: str, rounds: int, calls: dict[str, Call]) -> None:
        """Print what each call takes longer than that of a public method in the same round."""
        runs = await paired({"": self._open, **calls}, rounds)
        base = runs.pop("")
        for name, run in runs.items():
            found = run.fields()
            emit(
                f"access {kind}: {name}",
                n=found["n"],
                failed=found["failed"],
                **added(run, base),
                p50_ms=found["p50_ms"],
                baseline="the same call of a public method",
                baseline_p50_ms=base.fields()["p50_ms"],
            )

    async def _open(self, _: int) -> None:
        await self._call("Open", {})

    async def _call(self, method: str, headers: dict[str, str], target: str = "") -> None:
        url = self._client.url + BENCH_SERVICE[method].edge_path
        body = {"conversationId": target or self._target}
        async with self._client.session.post(url, json=body, headers=headers) as reply:
            assert reply.status == 200, await reply.text()
            await reply.read()

    async def _new_key(self) -> str:
        fields = {"name": "bench", "scopes": [CONVERSATIONS_READ]}
        return (await self._client.must_of(API_KEY_SERVICE, "CreateApiKey", **fields))["secret"]

    async def _own(self, conversations: list[str]) -> None:
        """Write owner tuples as llm does at creation."""
        tuples = [(f"user:{USER}", OWNER, f"conversation:{each}") for each in conversations]
        await self._platform.write_tuples(*tuples)
