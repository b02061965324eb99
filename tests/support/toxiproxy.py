"""Toxiproxy: TCP proxies whose faults a test turns on and off."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from services.cli.stack.binaries import default_cache
from services.cli.stack.builds import Builds, Program, Progress
from services.cli.stack.ports import LOOPBACK
from services.cli.stack.process import Readiness
from services.cli.stack.supervisor import launch_command, launch_spec
from services.cli.stack.toolchain import GoProgram, Toolchain
from services.cli.stack.waiting import wait_until as block_until
from tests.support.wait import wait_until

VERSION: Final = "2.12.0"
MODULE: Final = f"github.com/Shopify/toxiproxy/v2@v{VERSION}"
START_SECONDS: Final = 10
DIRECTIONS: Final = ("upstream", "downstream")
RESET_SHARE: Final = 0.05
RESET_PERIOD: Final = 0.25
"""Seconds between two resets of `RESET_SHARE` of the connections, in each direction."""


def program(progress: Progress) -> Path:
    """The path of toxiproxy's server, built if missing."""
    target = default_cache() / f"toxiproxy-{VERSION}"
    if not target.exists():
        Builds([Program("toxiproxy", target, _source)], progress).wait()
    return target


def _source(toolchain: Toolchain, _: Path) -> GoProgram:
    folder = toolchain.download("toxiproxy", MODULE)
    return GoProgram("toxiproxy", folder, "./cmd/server", ("-ldflags", "-s -w"))


@dataclass(frozen=True, slots=True)
class ProxiedPort:
    """A proxy by name: it listens on one local port and forwards to another."""

    name: str
    listen: int
    upstream: int

    def config(self) -> dict[str, object]:
        """As toxiproxy reads it."""
        return {
            "name": self.name,
            "listen": f"{LOOPBACK}:{self.listen}",
            "upstream": f"{LOOPBACK}:{self.upstream}",
            "enabled": True,
        }


class Toxiproxy:
    """The server of the proxies; it is killed with the thread that started it."""

    def __init__(self, folder: Path, port: int, proxies: Sequence[ProxiedPort]) -> None:
        self._folder = folder
        self._port = port
        self._proxies = tuple(proxies)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and wait until it listens."""
        config, launch = self._folder / "proxies.json", self._folder / "toxiproxy.json"
        config.write_text(json.dumps([proxy.config() for proxy in self._proxies]))
        options = ("-host", LOOPBACK, "-port", str(self._port), "-config", str(config))
        command = (str(program(print)), *options)
        launch.write_text(
            launch_spec(command, self._folder, {"LOG_LEVEL": "info"}, death_signal="KILL")
        )
        with (self._folder / "toxiproxy.log").open("ab") as log:
            self._process = subprocess.Popen(
                launch_command(launch, launch.with_suffix(".pid")), stdout=log, stderr=log
            )
        ready = Readiness(self._port, "/proxies").is_ready
        block_until(lambda: ready() and self._are_listening(), START_SECONDS, "toxiproxy")

    def stop(self) -> None:
        """End the server, and with it every connection."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def accepted(self, name: str) -> int:
        """How many connections a proxy has accepted."""
        lines = (self._folder / "toxiproxy.log").read_text().splitlines()
        found = (json.loads(line) for line in lines if "Accepted client" in line)
        return sum(each.get("name") == name for each in found)

    @asynccontextmanager
    async def latency(self, name: str, milliseconds: int) -> AsyncIterator[None]:
        """Delay every reply during the block."""
        toxic = {"type": "latency", "attributes": {"latency": milliseconds}}
        async with self._toxic(name, "downstream", toxic):
            yield

    @asynccontextmanager
    async def half_open(self, name: str) -> AsyncIterator[None]:
        """Drop all data during the block without a FIN, also on new connections; then close these connections."""
        toxic = {"type": "timeout", "attributes": {"timeout": 0}}
        async with self._toxic(name, "upstream", toxic), self._toxic(name, "downstream", toxic):
            yield

    @asynccontextmanager
    async def resets(self, name: str) -> AsyncIterator[None]:
        """Close connections until one is opened again; then reset (RST) `RESET_SHARE` of them at a time in the block."""
        toxic = {"type": "reset_peer", "attributes": {"timeout": 0}}
        before = self.accepted(name)
        async with self._toxic(name, "upstream", toxic), self._toxic(name, "downstream", toxic):
            # Toxiproxy sends RST only on connections that were opened while the toxic was set.
            await wait_until(lambda: self.accepted(name) > before, 20, f"a connection of {name}")
            resetting = asyncio.create_task(self._reset_some(name))
            try:
                yield
            finally:
                resetting.cancel()
                await asyncio.gather(resetting, return_exceptions=True)

    async def _reset_some(self, name: str) -> None:
        while True:
            for direction in DIRECTIONS:  # an update draws again which connections are reset
                path = f"/proxies/{name}/toxics/{direction}"
                await self._call("PATCH", path, {"toxicity": RESET_SHARE})
            await asyncio.sleep(RESET_PERIOD)

    @asynccontextmanager
    async def _toxic(
        self, name: str, direction: str, toxic: Mapping[str, object]
    ) -> AsyncIterator[None]:
        path = f"/proxies/{name}/toxics"
        await self._call("POST", path, {"name": direction, "stream": direction, **toxic})
        try:
            yield
        finally:
            await self._call("DELETE", f"{path}/{direction}")

    async def _call(self, method: str, path: str, body: Any = None) -> None:
        url = f"http://{LOOPBACK}:{self._port}{path}"
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, url, json=body) as reply,
        ):
            assert reply.status < 300, await reply.text()

    def _are_listening(self) -> bool:
        return all(Readiness(proxy.listen).is_ready() for proxy in self._proxies)
