"""Creates the FastAPI app of a manifest."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI

from services.contracts.apps import EDGE, callers_of
from services.kit.access.identity import TrustedApps
from services.kit.http.app import create_service
from services.kit.http.rpc import RpcRouter
from services.kit.manifest import App
from services.kit.settings import PlatformSettings
from services.platform.platform import Platform

DOCUMENTS: Final = Path(__file__).parents[1] / "contracts" / "openapi"
"""Folder of the generated OpenAPI documents."""

Compose = Callable[[Platform], Awaitable[None]]


def platform_app(
    manifest: App,
    settings: PlatformSettings,
    *,
    routers: Sequence[RpcRouter],
    compose: Compose,
) -> FastAPI:
    """Create an app from its manifest and routers; `compose` builds the routes' dependencies at startup."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with Platform.open(manifest, settings, app) as platform:
            await compose(platform)
            await platform.begin()
            yield

    internal = [method for method in manifest.methods if method.internal]
    app = create_service(
        manifest.id,
        settings,
        routers=routers,
        lifespan=lifespan,
        document=lambda: _document(manifest.id),
        trusted=TrustedApps(EDGE.id, {method.path: callers_of(method) for method in internal}),
        public_paths=manifest.public_paths,
    )
    if manifest.actors:
        from services.kit.dapr.actor_host import host_actors

        host_actors(app)
    return app


def _document(app_id: str) -> dict[str, Any]:
    return json.loads((DOCUMENTS / f"{app_id}.json").read_text())
