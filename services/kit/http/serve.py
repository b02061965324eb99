"""Runs an app: `python -m services.kit.http.serve services.llm.app`."""

import contextlib
import gc
import importlib
import resource
import sys
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI
from typing_extensions import override

from services.kit.http.dependencies import get_dependency
from services.kit.http.draining import Draining
from services.kit.settings import AppProtocol, PlatformSettings, load_settings
from services.kit.telemetry.stacks import print_stacks_on_signal

GRACE_SECONDS: Final = 8
MAX_OPEN_FILES: Final = 65_536


class DrainingServer(uvicorn.Server):
    """At SIGTERM begins draining, so that streams end with `reconnect`, then stops."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin draining, then shut down as uvicorn does."""
        get_dependency(self._app, Draining).begin()
        super().handle_exit(sig, frame)


def serve(module: str) -> None:
    """Serve the module's `create_app()` on APP_PORT until SIGTERM."""
    settings = load_settings(PlatformSettings)
    print_stacks_on_signal()
    raise_file_limit()
    app = load_app(module)
    if settings.app_protocol is AppProtocol.H2C:
        # Imported on demand, for memory and startup time.
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
        proxy_headers=False,  # the only peer is the sidecar
        date_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=GRACE_SECONDS,
        h11_max_incomplete_event_size=65_536,
    )
    DrainingServer(config, app).run()


def load_app(module: str) -> FastAPI:
    """The module's `create_app()`, without garbage collections, which would take a fifth of the start."""
    gc.disable()
    try:
        return importlib.import_module(module).create_app()
    finally:
        gc.freeze()  # what is loaded stays, so later collections need not look at it
        gc.enable()


def raise_file_limit() -> None:
    """Raise the open-file limit to the hard limit: each connection is a file."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = hard if hard != resource.RLIM_INFINITY else MAX_OPEN_FILES
    with contextlib.suppress(ValueError, OSError):  # some systems reject their own hard limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python -m services.kit.http.serve MODULE\n")
        raise SystemExit(2)
    serve(sys.argv[1])
