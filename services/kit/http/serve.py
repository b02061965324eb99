"""Runs an app: `python -m services.kit.http.serve services.llm.app`."""

import contextlib
import importlib
import resource
import sys
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI
from typing_extensions import override

from services.kit.http.dependencies import taken
from services.kit.http.draining import Draining
from services.kit.settings import AppProtocol, PlatformSettings, load_settings

GRACE_SECONDS: Final = 8
MOST_FILES: Final = 65_536


class DrainingServer(uvicorn.Server):
    """At SIGTERM first says that it drains, so that streams end with `reconnect`, then stops."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Flip health, then do as uvicorn does."""
        taken(self._app, Draining).begin()
        super().handle_exit(sig, frame)


def serve(module: str) -> None:
    """Serve the module's `create_app()` on APP_PORT until SIGTERM."""
    settings = load_settings(PlatformSettings)
    raise_file_limit()
    app = importlib.import_module(module).create_app()
    if settings.app_protocol is AppProtocol.H2C:
        # Loaded only where it is used: it costs memory and start.
        from services.kit.http.serve_h2 import serve_h2

        serve_h2(app, settings, GRACE_SECONDS)
        return
    config = uvicorn.Config(
        app,
        host=settings.bind,
        port=settings.app_port,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # the sidecar is the only peer, and the address of a client is the edge's affair
        date_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=GRACE_SECONDS,
        h11_max_incomplete_event_size=65_536,
    )
    DrainingServer(config, app).run()


def raise_file_limit() -> None:
    """Allow as many open files as the system lets this user have: each stream or connection is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = hard if hard != resource.RLIM_INFINITY else MOST_FILES
    with contextlib.suppress(ValueError, OSError):  # some systems refuse their own hard limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python -m services.kit.http.serve MODULE\n")
        raise SystemExit(2)
    serve(sys.argv[1])
