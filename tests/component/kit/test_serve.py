"""Serving over HTTP/1.1 and HTTP/2."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import aiohttp
import pytest

from services.kit.settings import AppProtocol
from tests.requirements import requirement
from tests.support.wait import wait_until

TOKEN = "a-token-that-is-long-enough"


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def served(protocol: AppProtocol, port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    env = {**os.environ, "APP_PORT": str(port), "APP_API_TOKEN": TOKEN, "APP_PROTOCOL": protocol}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.kit.http.serve", "tests.component.kit.served_app"),
        env=env,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@requirement("events:drain")
@pytest.mark.parametrize("protocol", AppProtocol)
async def test_a_stopping_server_accepts_no_calls_and_drains_streams(
    protocol: AppProtocol,
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/stream"
    async with served(protocol, port) as process, aiohttp.ClientSession() as session:

        async def opened() -> aiohttp.ClientResponse | None:
            try:
                return await session.get(url)
            except aiohttp.ClientConnectionError:
                return None

        stream = await wait_until(opened, 30, "the server")
        assert await stream.content.readuntil(b"\n\n") == b": open\n\n"
        process.send_signal(signal.SIGTERM)
        assert await stream.content.read() == b"event: reconnect\n\n"
        assert await process.wait() in (0, -signal.SIGTERM)
        assert await opened() is None


@requirement("events:drain")
@pytest.mark.parametrize("protocol", AppProtocol)
async def test_a_port_in_use_is_not_shared(protocol: AppProtocol) -> None:
    with closing(socket.create_server(("127.0.0.1", 0), reuse_port=True)) as taken:
        async with served(protocol, taken.getsockname()[1]) as process:
            _, said = await process.communicate()
    assert process.returncode
    assert b"in use" in said
