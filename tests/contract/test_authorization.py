"""Who may call a route is said by a type in its signature; a route that says nothing fails here."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.routing import Route

from services.contracts.scopes import KEY_SCOPES, USER_SCOPES
from services.contracts.services import SERVICES
from services.kit.access.authorization import Anybody, Authorization, FromApp, SignedIn
from services.kit.contract import RpcMethod
from services.kit.http.rpc import Endpoint, RpcRoutes
from tests.requirements import requirement

PUBLIC = {"/healthz", "/docs", "/docs/oauth2-redirect", "/openapi.json", "/.well-known/jwks.json"}
"""Routes that need no sign-in and are no RPC: health, documents and the public keys."""
SIDECAR = ("/dapr/", "/actors/")
"""Routes that Dapr's SDK adds; the sidecar's token guards them."""


@pytest.fixture(scope="module")
def apps() -> dict[str, FastAPI]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTH_KEY_SECRET", "a secret of at least thirty-two characters")
        patch.setenv("AUTH_OPENFGA_TOKEN", "a token of at least thirty-two characters")
        from services.auth.app import create_app as auth
        from services.llm.app import create_app as llm
        from workflows.app import create_app as workflows

        return {"auth": auth(), "llm": llm(), "workflows": workflows()}


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
    for service in SERVICES:
        routes = {route.path: route for route in _routes(apps[service.app_id])}
        for method in service.methods:
            [authorization] = _authorizations(routes[service.path(method)])
            assert isinstance(authorization, _wanted(method)), method.name
            seen += 1
    assert seen == sum(len(service.methods) for service in SERVICES)


def _wanted(method: RpcMethod) -> type[Authorization]:
    if method.internal:
        return FromApp
    return Anybody if method.public else SignedIn


@requirement("access:scopes")
def test_every_scope_is_needed_somewhere_and_every_method_s_scope_exists() -> None:
    needed = {method.scope for service in SERVICES for method in service.methods if method.scope}
    assert needed == set(USER_SCOPES)


@requirement("access:keys-never-mint-keys")
def test_a_key_can_neither_make_keys_nor_end_an_account() -> None:
    refused = set(USER_SCOPES) - set(KEY_SCOPES)
    assert refused == {"keys:write", "account:write"}
