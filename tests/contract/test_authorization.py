"""Every route states its callers by a type in its signature, as its contract does."""

import importlib
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.routing import Route

from services.contracts.apps import APPS, KEY_SCOPES, METHODS, USER_SCOPES
from services.kit.access.authorization import AnyCaller, Authorization, FromApp, SignedIn
from services.kit.contract import AnyMethod
from services.kit.http.rpc import Endpoint, RpcRoutes
from services.kit.manifest import Language, Secret
from tests.requirements import requirement

PUBLIC = {
    *("/healthz", "/docs", "/docs/oauth2-redirect", "/openapi.json"),
    *(path for app in APPS for path in app.public_paths),
}
"""Routes other than RPCs that need no sign-in: health, documents, public keys."""
SIDECAR = ("/dapr/", "/actors/", "/job/", "/events/")
"""Routes that only the sidecar calls, by its token."""


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
        else:  # an included router
            yield from _walk(route.original_router.routes)


def _authorizations(route: Route | Endpoint) -> list[Authorization]:
    if not isinstance(route, Endpoint):
        return []
    return [each for each in route.dependencies.values() if isinstance(each, Authorization)]


@requirement("access:typed-routes")
def test_every_route_has_an_authorization_type(apps: dict[str, FastAPI]) -> None:
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
def test_the_authorization_type_of_a_route_follows_from_the_contract(
    apps: dict[str, FastAPI],
) -> None:
    seen = 0
    for method in METHODS:
        routes = {route.path: route for route in _routes(apps[method.service.app_id])}
        [authorization] = _authorizations(routes[method.path])
        assert isinstance(authorization, _wanted(method)), method.name
        seen += 1
    assert seen == len(METHODS)


@requirement("access:typed-routes")
def test_a_method_that_names_an_object_requires_a_relation_to_it(apps: dict[str, FastAPI]) -> None:
    seen, unchecked = 0, list[str]()
    for method in METHODS:
        if method.internal or method.public or "conversation_id" not in method.request.model_fields:
            continue
        routes = {route.path: route for route in _routes(apps[method.service.app_id])}
        [authorization] = _authorizations(routes[method.path])
        seen += 1
        if type(authorization) is SignedIn:
            unchecked.append(method.name)
    assert unchecked == []
    assert seen > 0


def _wanted(method: AnyMethod) -> type[Authorization]:
    if method.internal:
        return FromApp
    return AnyCaller if method.public else SignedIn


@requirement("access:scopes")
def test_the_user_scopes_are_the_scopes_of_the_methods() -> None:
    needed = {method.scope for method in METHODS if method.scope}
    assert needed == set(USER_SCOPES)


@requirement("access:keys-never-mint-keys")
def test_a_key_can_neither_create_keys_nor_delete_an_account() -> None:
    refused = set(USER_SCOPES) - set(KEY_SCOPES)
    assert refused == {"keys:write", "account:write"}
