"""Every port except the edge's requires a token: apps, sidecars, Dapr's APIs and actors, tried with wrong tokens."""

import itertools
from typing import Any, Final

import aiohttp
import grpc.aio
import psutil
import pytest
from dapr.proto import api_v1
from dapr.proto.runtime.v1 import dapr_pb2_grpc
from yarl import URL

from services.cli.stack.ports import LOOPBACK
from services.contracts import apps
from services.contracts.apps import EDGE, METHODS, callers_of
from tests.requirements import requirement
from tests.support.platform import Client, Platform

APPS: Final = tuple(app.id for app in apps.APPS if app is not EDGE)
"""Apps whose port requires the sidecar's token."""
SIDECARS: Final = (*APPS, EDGE.id)
CALLERS: Final = {app.id for app in apps.APPS if app.calls}
ACTORS: Final = tuple(actor for app in apps.APPS for actor in app.actors)
FORGED: Final = (
    *(("PUT", f"/actors/{actor}/x/method/delete") for actor in ACTORS),
    *(("PUT", f"/actors/{actor}/x/method/remind/purge") for actor in ACTORS),
    *(("PUT", f"/actors/{actor}/x/method/timer/t") for actor in ACTORS),
    *(("DELETE", f"/actors/{actor}/x") for actor in ACTORS),
    ("GET", "/dapr/config"),
    ("GET", "/dapr/subscribe"),
    ("POST", "/job/anything"),
    ("POST", "/events/turn.completed"),
)
DAPR_APIS: Final = (
    ("GET", "/v1.0/state/statestore/key"),
    ("POST", "/v1.0/state/statestore"),
    ("DELETE", "/v1.0/state/statestore/key"),
    ("POST", "/v1.0/state/statestore/transaction"),
    ("POST", "/v1.0-alpha1/state/statestore/query"),
    ("POST", "/v1.0/publish/pubsub/topic"),
    ("POST", "/v1.0/bindings/email"),
    ("GET", "/v1.0/secrets/secrets/postgresPassword"),
    ("GET", "/v1.0/secrets/secrets/bulk"),
    ("GET", "/v1.0/configuration/any"),
    ("POST", "/v1.0-alpha1/lock/any"),
    ("PUT", "/v1.0-alpha1/crypto/any/encrypt"),
    *(("PUT", f"/v1.0/actors/{actor}/x/method/delete") for actor in ACTORS),
    *(("GET", f"/v1.0/actors/{actor}/x/state/head") for actor in ACTORS),
    *(("POST", f"/v1.0/actors/{actor}/x/reminders/purge") for actor in ACTORS),
    *(("POST", f"/v1.0/workflows/dapr/{each.name}/start") for each in apps.WORKFLOWS),
    ("POST", "/v1.0-beta1/workflows/dapr/x/terminate"),
    ("POST", "/v1.0-alpha1/jobs/any"),
    ("GET", "/v1.0/metadata"),
    ("PUT", "/v1.0/metadata/key"),
    ("POST", "/v1.0/shutdown"),
)
INTERNAL: Final = [method for method in METHODS if method.internal]
SPELLINGS: Final = (
    "{public}/../{internal}",
    "{public}/..%2f..%2f{internal}",
    "{public}/%2e%2e/%2e%2e/{internal}",
    "{public}%2f..%2f{internal}",
    "{public};/../../{internal}",
    ".%2f{internal}",
    "//{internal}",
    "{internal}/",
    "{internal}%00",
    "{internal}?x={public}",
    "{internal}#{public}",
    "{upper}",
)
"""Spellings of an internal path that a check of public paths could miss."""


def tokens(platform: Platform, right: str) -> list[dict[str, str]]:
    """No token, malformed ones, and the tokens of other apps and sidecars."""
    others = {platform.stack.app_token(app) for app in SIDECARS}
    others |= {platform.stack.api_token(app) for app in SIDECARS}
    wrong = ["", "wrong", right[:-1], right + "0", *sorted(others - {right})]
    return [{}, *({"dapr-api-token": value} for value in wrong)]


async def status(
    http: aiohttp.ClientSession, verb: str, url: str, headers: dict[str, str]
) -> tuple[int, str]:
    """Status and text of a call, with the path unnormalized."""
    raw = URL(url, encoded=True)
    async with http.request(verb, raw, headers=headers, json={}) as reply:
        return reply.status, await reply.text()


@requirement("access:zero-trust")
@pytest.mark.parametrize("app", APPS)
async def test_an_app_refuses_every_token_but_its_sidecars(
    platform: Platform, alice: Client, app: str
) -> None:
    paths = [*FORGED, *(("POST", method.path) for method in METHODS)]
    wrong = tokens(platform, platform.stack.app_token(app))
    for (verb, path), headers in itertools.product(paths, wrong):
        found, text = await status(
            alice.session, verb, platform.stack.url(app) + path, {**headers, "x-user-id": "ada"}
        )
        assert found == 401, (verb, path, headers, text)
    assert len(paths) * len(wrong) > 400


@requirement("access:zero-trust")
@pytest.mark.parametrize("app", SIDECARS)
async def test_a_sidecar_refuses_every_token_but_its_own(
    platform: Platform, alice: Client, app: str
) -> None:
    url = platform.stack.url(f"{app}-daprd")
    paths = [*DAPR_APIS, ("POST", "/v1.0/invoke/auth/method/x"), ("GET", "/v1.0/healthz/outbound")]
    wrong = tokens(platform, platform.stack.api_token(app))
    for (verb, path), headers in itertools.product(paths, wrong):
        found, text = await status(alice.session, verb, url + path, headers)
        assert found in (401, 404) or path.endswith("outbound"), (verb, path, headers, text)


@requirement("access:zero-trust")
@pytest.mark.parametrize("app", SIDECARS)
async def test_the_grpc_port_of_a_sidecar_requires_its_token(platform: Platform, app: str) -> None:
    port = platform.stack.spec(f"{app}-daprd").ports[f"gRPC of the sidecar of {app}"]
    async with grpc.aio.insecure_channel(f"{LOOPBACK}:{port}") as channel:
        stub: Any = dapr_pb2_grpc.DaprStub(channel)
        for headers in tokens(platform, platform.stack.api_token(app)):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.GetState(
                    api_v1.GetStateRequest(store_name="statestore", key="x"),
                    metadata=tuple(headers.items()),
                    timeout=20,
                )
            closed = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED)
            assert refused.value.code() in closed


@requirement("access:zero-trust")
@pytest.mark.parametrize("app", SIDECARS)
async def test_a_sidecar_has_only_the_apis_that_its_app_uses(
    platform: Platform, alice: Client, app: str
) -> None:
    headers = {"dapr-api-token": platform.stack.api_token(app)}
    for verb, path in DAPR_APIS:
        found, text = await status(
            alice.session, verb, platform.stack.url(f"{app}-daprd") + path, headers
        )
        assert found in (403, 404, 405), (verb, path, found, text)
    assert platform.stack.is_ready(f"{app}-daprd")


@requirement("access:zero-trust")
async def test_everything_listens_on_loopback_only(platform: Platform) -> None:
    listening: list[tuple[str, str, int]] = []
    for name in platform.stack.names:
        for process in platform.family(name):
            listening += [
                (name, connection.laddr.ip, connection.laddr.port)
                for connection in process.net_connections(kind="inet")
                if connection.status == psutil.CONN_LISTEN
            ]
    assert {name for name, _, _ in listening} == set(platform.stack.names)
    ports = {
        what: port
        for name in platform.stack.names
        for what, port in platform.stack.spec(name).ports.items()
    }
    # placement and scheduler 1.18.3 ignore --healthz-listen-address; their health ports serve nothing else.
    health = {ports["placement health"], ports["scheduler health"]}
    outside = [each for each in listening if each[1] not in (LOOPBACK, "::1")]
    assert {port for _, _, port in outside} <= health
    assert {port for _, _, port in listening} <= set(ports.values())  # no profiler, no debugger


@requirement("access:zero-trust")
async def test_no_path_at_the_edge_reaches_an_internal_method(
    platform: Platform, alice: Client
) -> None:
    before = await alice.must("ListConversations")
    tried = 0
    for method in INTERNAL:
        public = next(
            (
                each.path
                for each in METHODS
                if each.service.app_id == method.service.app_id and not each.internal
            ),
            "/yocaso.none.v1.None/None",
        )
        internal = method.path
        for spelling in SPELLINGS:
            path = spelling.format(
                public=public.lstrip("/"),
                internal=internal.lstrip("/"),
                upper=internal.upper().lstrip("/"),
            )
            outside = f"{alice.url}{method.edge_path.rpartition('/')[0]}/{path}"
            inside = f"{alice.url}/v1.0/invoke/{method.service.app_id}/method/{path}"
            for url in (outside, inside):
                found, text = await status(alice.session, "POST", url, alice.headers())
                assert found in (400, 401, 404, 405), (url, found, text)
                tried += 1
    assert tried >= 2 * len(SPELLINGS) * len(INTERNAL)
    assert await alice.must("ListConversations") == before


@requirement("access:zero-trust")
async def test_an_app_also_refuses_callers_that_the_contract_does_not_name(
    platform: Platform, alice: Client
) -> None:
    for method in INTERNAL:
        for caller in CALLERS - {*callers_of(method), method.service.app_id}:
            url = platform.stack.url(f"{caller}-daprd")
            path = f"/v1.0/invoke/{method.service.app_id}/method{method.path}"
            own = {"dapr-api-token": platform.stack.api_token(caller)}
            for said in ({}, *({"dapr-caller-app-id": name} for name in callers_of(method))):
                found, text = await status(alice.session, "POST", url + path, {**own, **said})
                assert found == 403, (caller, method.name, said, text)
                assert "PERMISSION_DENIED" in text
