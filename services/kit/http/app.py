"""The app factory: health, authentication of the sidecar, limits, error handling and telemetry of every service."""

import gc
import hmac
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.kit.access.identity import TrustedApps
from services.kit.dapr.placement_watch import placement_watch
from services.kit.dapr.state_rows import StateStoreError
from services.kit.errors import ErrorCode, RpcError, internal_error, unavailable
from services.kit.http.access_log import AccessLog
from services.kit.http.dependencies import get_dependency, provide
from services.kit.http.draining import Draining
from services.kit.http.overload import AdmissionControl, LoadShedder
from services.kit.http.rpc import RpcRouter, RpcRoutes
from services.kit.settings import PlatformSettings
from services.kit.telemetry.logs import configure_logs
from services.kit.telemetry.tracing import TelemetryMiddleware, configure_telemetry

HEALTH_PATH: Final = "/healthz"
MAX_BODY_BYTES: Final = 1024 * 1024
TOKEN_HEADER: Final = b"dapr-api-token"
GC_THRESHOLD: Final = 20_000
"""Allocations per garbage collection; Python's default of 700 means two collections per call."""

log = structlog.get_logger()

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def create_service(
    app_id: str,
    settings: PlatformSettings,
    *,
    routers: Sequence[RpcRouter],
    lifespan: Lifespan,
    document: Callable[[], dict[str, Any]],
    trusted: TrustedApps,
    public_paths: Collection[str] = (),
) -> FastAPI:
    """Create an app. `document` returns its OpenAPI document; `public_paths` need no sidecar token."""
    configure_logs(app_id)
    configure_telemetry(app_id)
    app = FastAPI(
        title=f"Yocaso {app_id}",
        lifespan=_run(lifespan),
        openapi_url="/openapi.json",
        redoc_url=None,
        # FastAPI's own telemetry would record every request twice, with its query, which may hold user content.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.openapi = document
    provide(app, Draining(), trusted)
    app.add_api_route(HEALTH_PATH, _health, methods=["GET"], include_in_schema=False)
    app.router.routes.insert(0, RpcRoutes(each for router in routers for each in router.endpoints))
    _handle_errors(app)
    sheddable = [path for router in routers for path in router.sheddable_paths]
    app.add_middleware(AccessLog)
    app.add_middleware(LoadShedder, paths=sheddable, admission=AdmissionControl())
    open_paths = {HEALTH_PATH, "/docs", "/openapi.json", *public_paths}
    app.add_middleware(BodyLimit, limit=MAX_BODY_BYTES)
    app.add_middleware(SidecarToken, token=settings.app_token.get_secret_value(), public=open_paths)
    app.add_middleware(TelemetryMiddleware)
    return app


class SidecarToken:
    """Admits only calls with the token of this app's own sidecar."""

    def __init__(self, app: ASGIApp, token: str, public: Collection[str]) -> None:
        self._app = app
        self._token = token.encode()
        self._public = frozenset(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward the request, or answer UNAUTHENTICATED."""
        if scope["type"] != "http" or scope["path"] in self._public:
            await self._app(scope, receive, send)
            return
        sent = [value for name, value in scope["headers"] if name == TOKEN_HEADER]
        if len(sent) == 1 and hmac.compare_digest(sent[0], self._token):
            await self._app(scope, receive, send)
            return
        error = RpcError(ErrorCode.UNAUTHENTICATED, "This app accepts calls from its sidecar only.")
        await _respond(error)(scope, receive, send)


class BodyLimit:
    """Rejects a request body over the limit, by `content-length` or while it is received."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward the request, with a counter on its body."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = next(
            (value for name, value in scope["headers"] if name == b"content-length"), b"0"
        )
        if int(declared) > self._limit:
            await _respond(self._too_large())(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                raise self._too_large()
            return message

        await self._app(scope, counted, send)

    def _too_large(self) -> RpcError:
        return RpcError(
            ErrorCode.PAYLOAD_TOO_LARGE, f"The body is longer than {self._limit} bytes."
        )


def _run(lifespan: Lifespan) -> Callable[[FastAPI], Any]:
    @asynccontextmanager
    async def run(app: FastAPI) -> AsyncIterator[None]:
        async with lifespan(app):
            # Exempt the startup objects: scanning them makes each full collection block the event loop for 150 ms.
            gc.collect()
            gc.freeze()
            gc.set_threshold(GC_THRESHOLD, 20, 50)
            yield

    return run


async def _health(request: Request) -> Response:
    """204; 503 while draining, so that the sidecar stops sending calls, or while `placement_watch` releases actors."""
    is_unhealthy = get_dependency(request.app, Draining) or placement_watch.is_releasing
    return Response(status_code=503 if is_unhealthy else 204)


def _handle_errors(app: FastAPI) -> None:
    async def on_rpc_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, RpcError)
        return _respond(error)

    async def on_http_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _respond(_from_http(error))

    async def on_store_error(_: Request, error: Exception) -> Response:
        log.warning("state.failed", error=str(error))
        return _respond(unavailable())

    async def on_invalid(_: Request, error: Exception) -> Response:
        del error
        return _respond(RpcError(ErrorCode.INVALID_ARGUMENT, "The request is malformed."))

    async def on_disconnect(_: Request, error: Exception) -> Response:
        del error
        return _respond(RpcError(ErrorCode.CANCELLED, "The client disconnected."))

    async def on_bug(request: Request, error: Exception) -> Response:
        log.error("request.failed", path=request.url.path, exc_info=error)
        return _respond(internal_error())

    app.add_exception_handler(RpcError, on_rpc_error)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(StateStoreError, on_store_error)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(ClientDisconnect, on_disconnect)
    app.add_exception_handler(Exception, on_bug)


def _from_http(error: HTTPException) -> RpcError:
    if error.status_code == 404:
        return RpcError(ErrorCode.NOT_FOUND, "No such method.")
    if error.status_code == 405:
        return RpcError(ErrorCode.UNIMPLEMENTED, "The method does not support this HTTP verb.")
    return RpcError(ErrorCode.INVALID_ARGUMENT, "The request is malformed.")


def _respond(error: RpcError) -> Response:
    return Response(error.to_body().to_json(), error.status, error.headers(), "application/json")
