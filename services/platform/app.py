"""Creates the FastAPI app of a manifest."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI

from services.contracts.apps import EDGE, callers_of, require_foreign
from services.kit.access.identity import TrustedApps
from services.kit.http.app import create_service
from services.kit.http.rpc import RpcRouter
from services.kit.manifest import App
from services.kit.settings import TRUSTED_APPS, PlatformSettings, refuse_setting
from services.platform.platform import Platform

if TYPE_CHECKING:  # only apps that subscribe load SQLAlchemy
    from services.kit.dapr.pubsub.subscriptions import EventRouter, Subscriptions

DOCUMENTS: Final = Path(__file__).parents[1] / "contracts" / "openapi"
"""Folder of the generated OpenAPI documents."""

Compose = Callable[[Platform], Awaitable[None]]


def platform_app(
    manifest: App,
    settings: PlatformSettings,
    *,
    routers: Sequence[RpcRouter],
    events: "Sequence[EventRouter]" = (),
    compose: Compose,
) -> FastAPI:
    """Create an app from its manifest and routers; `compose` builds the routes' dependencies at startup."""
    subscriptions = _subscriptions(manifest, events)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with Platform.open(manifest, settings, app) as platform:
            if subscriptions is not None:
                await platform.open_subscriptions(subscriptions)
            await compose(platform)
            await platform.begin()
            yield

    app = create_service(
        manifest.id,
        settings,
        routers=[*routers, *_dead_letter_routers(manifest)],
        lifespan=lifespan,
        document=lambda: _document(manifest.id),
        trusted=_trusted_apps(manifest, settings),
        public_paths=manifest.public_paths,
    )
    if manifest.actors:
        from services.kit.dapr.actor_host import host_actors

        host_actors(app)
    if subscriptions is not None:
        subscriptions.route(app)
    _route_jobs_and_bindings(manifest, app)
    return app


def _subscriptions(manifest: App, routers: "Sequence[EventRouter]") -> "Subscriptions | None":
    """The app's subscriptions, or None without any.

    Raises:
        RuntimeError: the manifest's `subscribes` and the handlers differ.
    """
    if not manifest.subscribes and not routers:
        return None
    from services.kit.dapr.pubsub.subscriptions import Subscriptions

    return Subscriptions(manifest.id, manifest.subscribes, routers)


def _route_jobs_and_bindings(manifest: App, app: FastAPI) -> None:
    if manifest.jobs:
        from services.kit.dapr.jobs.jobs import route_jobs

        route_jobs(app)
    if manifest.bindings:
        from services.kit.dapr.bindings import route_bindings

        route_bindings(app, manifest.bindings)


def _dead_letter_routers(manifest: App) -> list[RpcRouter]:
    if not manifest.subscribes:
        return []
    from services.kit.dapr.pubsub.dead_letters import dead_letter_routes

    return [dead_letter_routes(manifest.id)]


def _trusted_apps(manifest: App, settings: PlatformSettings) -> TrustedApps:
    try:
        require_foreign(settings.trusted_apps)
    except ValueError as error:
        refuse_setting(TRUSTED_APPS, str(error))
    callers = {
        method.path: callers_of(method, settings.trusted_apps) for method in manifest.methods
    }
    return TrustedApps(EDGE.id, callers)


def _document(app_id: str) -> dict[str, Any]:
    return json.loads((DOCUMENTS / f"{app_id}.json").read_text())
