"""Serves an app over HTTP/2 cleartext (h2c).

Over HTTP/1.1 daprd 1.18 opens at most 1,024 connections to its app: with as many open streams, further calls and
health probes would wait.
"""

import asyncio
import signal
import socket
from contextlib import closing
from typing import Final

import uvloop
from fastapi import FastAPI
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP2Settings
from granian.server.embed import Server
from starlette.types import Receive, Scope, Send

from services.kit.http.dependencies import get_dependency
from services.kit.http.draining import Draining
from services.kit.settings import PlatformSettings

STREAMS_PER_CONNECTION: Final = 1000
BACKLOG: Final = 1024
MAX_CALLS: Final = 100_000
"""Disables the server's own backpressure, which would queue calls that `LoadShedder` should reject."""


def serve_h2(app: FastAPI, settings: PlatformSettings, grace_seconds: float) -> None:
    """Serve until SIGTERM; HTTP/1.1 is accepted too."""
    _require_free(settings.bind, settings.app_port)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(app, settings, grace_seconds))


async def _serve(app: FastAPI, settings: PlatformSettings, grace_seconds: float) -> None:
    calls = _InFlightCalls(app)
    stopping = _stop_signals()
    async with app.router.lifespan_context(app):
        server = Server(
            calls,
            address=settings.bind,
            port=settings.app_port,
            interface=Interfaces.ASGINL,  # granian's lifespan would ignore a failed startup
            http=HTTPModes.auto,
            websockets=False,
            backlog=BACKLOG,
            backpressure=MAX_CALLS,
            http2_settings=HTTP2Settings(max_concurrent_streams=STREAMS_PER_CONNECTION),
            log_enabled=False,
        )
        serving = asyncio.create_task(server.serve())
        try:
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            get_dependency(app, Draining).begin()
            server.stop()  # accepts no new connections; calls in flight continue
            await calls.drain(grace_seconds)
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


def _stop_signals() -> "asyncio.Future[None]":
    loop = asyncio.get_running_loop()
    stopping = loop.create_future()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, lambda: stopping.done() or stopping.set_result(None))
    return stopping


def _require_free(host: str, port: int) -> None:
    """Fail if another process listens: with SO_REUSEPORT, the two would share the calls."""
    with closing(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))


class _InFlightCalls:
    """ASGI wrapper that tracks the calls in flight."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._tasks: set[asyncio.Task[object]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._app(scope, receive, send)
        finally:
            self._tasks.discard(task)

    async def drain(self, seconds: float) -> None:
        """Wait for the calls in flight, and those that arrive, at most `seconds`; cancel the rest."""
        deadline = asyncio.get_running_loop().time() + seconds
        while self._tasks and (left := deadline - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait(self._tasks, timeout=left)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1)
