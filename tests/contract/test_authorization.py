"""Who may call a route is said by a type in its signature; a route that says nothing fails here."""

import importlib
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.routing import Route

from services.contracts.apps import APPS, KEY_SCOPES, METHODS, USER_SCOPES
from services.kit.access.authorization import Anybody, Authorization, FromApp, SignedIn
from services.kit.contract import AnyMethod
from services.kit.http.rpc import Endpoint, RpcRoutes
from services.kit.manifest import Language, Secret
from tests.requirements import requirement

PUBLIC = {
    *("/healthz", "/docs", "/docs/oauth2-redirect", "/openapi.json"),
    *(path for app in APPS for path in app.public_paths),
}
"""Routes that need no sign-in and are no RPC: health, documents and the public keys."""
SIDECAR = ("/dapr/", "/actors/")
"""Routes that Dapr's SDK adds; the sidecar's token guards them."""


@pytest.fixture(scope="module")
def apps() -> dict[str, FastAPI]:
    with pytest.MonkeyPatch.context() as patch:
        for app in APPS:
            for name, variable in app.variables.items():
                if isinstance(variable, Secret):
                    patch.setenv(name, "a secret of at least thirty-two characters")
        return {
            app.id: importlib.import_module(f"{app.module}.app").create_app()
            for app in APPS
            if app.language is Language.PYTHON
        }


def _routes(app: FastAPI) -> Iterator[Route | Endpoint]:
    yield from _walk(app.routes)


def _walk(routes: Any) -> Iterator[Route | Endpoint]:
    for route in routes:
        if isinstance(route, Route):
            yield route
        elif isinstance(route, RpcRoutes):
            yield from route.endpoints
        else:  # a router that was included: anything else has no such attribute, and fails
            yield from _walk(route.original_router.routes)


def _authorizations(route: Route | Endpoint) -> list[Authorization]:
    if not isinstance(route, Endpoint):
        return []
    return [each for each in route.dependencies.values() if isinstance(each, Authorization)]


@requirement("access:typed-routes")
def test_every_route_names_who_may_call_it(apps: dict[str, FastAPI]) -> None:
    silent = {
        f"{name}{route.path}"
        for name, app in apps.items()
        for route in _routes(app)
        if len(_authorizations(route)) != 1
        and route.path not in PUBLIC
        and not route.path.startswith(SIDECAR)
    }
    assert silent == set()


@requirement("access:typed-routes")
def test_the_type_is_the_one_that_the_contract_asks_for(apps: dict[str, FastAPI]) -> None:
    seen = 0
    for method in METHODS:
        routes = {route.path: route for route in _routes(apps[method.service.app_id])}
        [authorization] = _authorizations(routes[method.path])
        assert isinstance(authorization, _wanted(method)), method.name
        seen += 1
    assert seen == len(METHODS)


def _wanted(method: AnyMethod) -> type[Authorization]:
    if method.internal:
        return FromApp
    return Anybody if method.public else SignedIn


@requirement("access:scopes")
def test_every_scope_is_needed_somewhere_and_every_method_s_scope_exists() -> None:
    needed = {method.scope for method in METHODS if method.scope}
    assert needed == set(USER_SCOPES)


@requirement("access:keys-never-mint-keys")
def test_a_key_can_neither_make_keys_nor_end_an_account() -> None:
    refused = set(USER_SCOPES) - set(KEY_SCOPES)
    assert refused == {"keys:write", "account:write"}
