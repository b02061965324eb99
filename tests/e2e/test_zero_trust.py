"""Every port except the edge's requires a token: apps, sidecars, Dapr's APIs and actors, tried with wrong tokens.

Every path is called without a token and with a wrong one, every kind of path with each kind of wrong token.
"""

import contextlib
import re
from collections.abc import Iterator
from itertools import cycle, product
from typing import Any, Final

import aiohttp
import asyncpg
import grpc.aio
import psutil
import pytest
from dapr.proto import api_v1
from dapr.proto.runtime.v1 import dapr_pb2_grpc
from valkey.asyncio import Valkey
from valkey.exceptions import AuthenticationError
from yarl import URL

from services.cli.stack.ports import LOOPBACK
from services.contracts import apps
from services.contracts.apps import EDGE, METHODS
from services.kit.contract import AnyMethod
from tests.requirements import requirement
from tests.support.concurrency import for_each
from tests.support.platform import Client, Platform

APPS: Final = tuple(app.id for app in apps.APPS if app is not EDGE)
"""Apps whose port requires the sidecar's token."""
SIDECARS: Final = (*APPS, EDGE.id)
PORTS: Final = {
    "public": "app edge",
    "token of the app": f"app ({'|'.join(APPS)})",
    "token of the sidecar": "(HTTP|gRPC) of the sidecar of .+",
    "certificate": "internal gRPC of the sidecar of .+|placement|scheduler|sentry",
    "password": "postgres|valkey|openfga|openfga grpc|versitygw",
    "loopback": "metrics of the sidecar of .+|.+ (health|metrics)|placement raft|scheduler etcd (client|peer)",
}
"""What protects each port beside the loopback address, by a pattern of the ports' names."""
ACTORS: Final = tuple(actor for app in apps.APPS for actor in app.actors)
Call = tuple[str, str]
"""A verb and a path."""
ACTOR_CALLS: Final = (
    *(("PUT", f"/actors/{actor}/x/method/delete") for actor in ACTORS),
    *(("PUT", f"/actors/{actor}/x/method/remind/purge") for actor in ACTORS),
    *(("PUT", f"/actors/{actor}/x/method/timer/t") for actor in ACTORS),
    *(("DELETE", f"/actors/{actor}/x") for actor in ACTORS),
)
PATHS_OF_APPS: Final[dict[str, tuple[Call, ...]]] = {
    "methods": tuple(("POST", method.path) for method in METHODS),
    "actors": ACTOR_CALLS,
    "discovery": (("GET", "/dapr/config"), ("GET", "/dapr/subscribe")),
    "jobs": (("POST", "/job/anything"),),
    "events": (("POST", "/events/turn.completed"),),
}
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
PATHS_OF_SIDECARS: Final[dict[str, tuple[Call, ...]]] = {
    "APIs": DAPR_APIS,
    "invocation": (("POST", "/v1.0/invoke/auth/method/x"),),
}
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


def wrong_tokens(own_platform: Platform, app: str, right: str) -> list[dict[str, str]]:
    """A header of each kind of wrong token: none, malformed ones, and those of other apps and sidecars."""
    other = next(each for each in SIDECARS if each != app)
    tokens = (own_platform.stack.app_token, own_platform.stack.api_token)
    others = [token(each) for token in tokens for each in (app, other)]
    wrong = ["", "wrong", right[:-1], right + "0", *(each for each in others if each != right)]
    return [{}, *({"dapr-api-token": value} for value in wrong)]


def attempts(
    paths: dict[str, tuple[Call, ...]], wrong: list[dict[str, str]]
) -> Iterator[tuple[Call, dict[str, str]]]:
    """The first path of each kind with each wrong token, the others without a token and with one of them."""
    none, *others = wrong
    remaining = cycle(others)
    for first, *rest in paths.values():
        yield from product([first], wrong)
        for call in rest:
            yield call, none
            yield call, next(remaining)


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
    own_platform: Platform, alice: Client, app: str
) -> None:
    async def refuses(attempt: tuple[Call, dict[str, str]]) -> None:
        (verb, path), headers = attempt
        url = own_platform.stack.url(app) + path
        found, text = await status(alice.session, verb, url, {**headers, "x-user-id": "ada"})
        assert found == 401, (verb, path, headers, text)

    wrong = wrong_tokens(own_platform, app, own_platform.stack.app_token(app))
    assert len(wrong) == 8
    tried = await for_each(attempts(PATHS_OF_APPS, wrong), refuses)
    assert tried > 2 * len(METHODS)


@requirement("access:zero-trust")
@pytest.mark.parametrize("app", SIDECARS)
async def test_a_sidecar_refuses_every_token_but_its_own(
    own_platform: Platform, alice: Client, app: str
) -> None:
    async def refuses(attempt: tuple[Call, dict[str, str]]) -> None:
        (verb, path), headers = attempt
        url = own_platform.stack.url(f"{app}-daprd") + path
        found, text = await status(alice.session, verb, url, headers)
        assert found in (401, 404), (verb, path, headers, text)

    wrong = wrong_tokens(own_platform, app, own_platform.stack.api_token(app))
    tried = await for_each(attempts(PATHS_OF_SIDECARS, wrong), refuses)
    assert tried > 2 * len(DAPR_APIS)


@requirement("access:zero-trust")
@pytest.mark.parametrize("app", SIDECARS)
async def test_the_grpc_port_of_a_sidecar_requires_its_token(
    own_platform: Platform, app: str
) -> None:
    port = own_platform.stack.spec(f"{app}-daprd").ports[f"gRPC of the sidecar of {app}"]
    async with grpc.aio.insecure_channel(f"{LOOPBACK}:{port}") as channel:
        stub: Any = dapr_pb2_grpc.DaprStub(channel)
        for headers in wrong_tokens(own_platform, app, own_platform.stack.api_token(app)):
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
    own_platform: Platform, alice: Client, app: str
) -> None:
    headers = {"dapr-api-token": own_platform.stack.api_token(app)}

    async def has_none(call: Call) -> None:
        verb, path = call
        url = own_platform.stack.url(f"{app}-daprd") + path
        found, text = await status(alice.session, verb, url, headers)
        assert found in (403, 404, 405), (verb, path, found, text)

    await for_each(DAPR_APIS, has_none)
    assert own_platform.stack.is_ready(f"{app}-daprd")


@requirement("access:zero-trust")
async def test_everything_listens_on_loopback_only(own_platform: Platform) -> None:
    listening: list[tuple[str, str, int]] = []
    for name in own_platform.stack.names:
        for process in own_platform.family(name):
            with contextlib.suppress(psutil.NoSuchProcess):  # a session of Postgres that ended
                listening += [
                    (name, connection.laddr.ip, connection.laddr.port)
                    for connection in process.net_connections(kind="inet")
                    if connection.status == psutil.CONN_LISTEN
                ]
    assert {name for name, _, _ in listening} == set(own_platform.stack.names)
    ports = {
        what: port
        for name in own_platform.stack.names
        for what, port in own_platform.stack.spec(name).ports.items()
    }
    # Dapr's control plane 1.18.3 ignores --healthz-listen-address, and sentry --metrics-listen-address too; these ports
    # serve nothing else.
    known = ("placement health", "scheduler health", "sentry health", "sentry metrics")
    outside = [each for each in listening if each[1] not in (LOOPBACK, "::1")]
    assert {port for _, _, port in outside} <= {ports[each] for each in known}
    assert {port for _, _, port in listening} <= set(ports.values())  # no profiler, no debugger


@requirement("access:zero-trust")
async def test_every_port_has_one_row_in_the_table_of_ports(own_platform: Platform) -> None:
    rows: dict[str, list[str]] = {}
    for name in own_platform.stack.names:
        for port in own_platform.stack.spec(name).ports:
            rows[port] = [guard for guard, what in PORTS.items() if re.fullmatch(what, port)]
    assert {port: found for port, found in rows.items() if len(found) != 1} == {}


@requirement("access:zero-trust")
async def test_a_store_refuses_a_client_without_its_password(
    own_platform: Platform, alice: Client
) -> None:
    stack = own_platform.stack
    database = URL(stack.database_url())
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(str(database.with_password("wrong")))
    stranger = Valkey(host=LOOPBACK, port=stack.spec("valkey").ports["valkey"])
    with pytest.raises(AuthenticationError):
        await stranger.get("key")
    await stranger.aclose()
    for headers in ({}, {"authorization": "Bearer wrong"}):
        async with alice.session.get(f"{stack.url('openfga')}/stores", headers=headers) as reply:
            assert reply.status == 401


@requirement("access:zero-trust")
async def test_no_path_at_the_edge_reaches_an_internal_method(alice: Client) -> None:
    before = await alice.must("ListConversations")

    async def refused(url: str) -> None:
        found, text = await status(alice.session, "POST", url, alice.headers())
        assert found in (400, 401, 404, 405), (url, found, text)

    urls = [url for method in INTERNAL for url in spelled(alice.url, method)]
    assert await for_each(urls, refused) == 2 * len(SPELLINGS) * len(INTERNAL)
    assert await alice.must("ListConversations") == before


def spelled(edge: str, method: AnyMethod) -> Iterator[str]:
    """URLs of the edge that could reach an internal method, by its own paths and by those of Dapr."""
    same_app = (each for each in METHODS if each.service.app_id == method.service.app_id)
    public = next(
        (each.path for each in same_app if not each.internal), "/yocaso.none.v1.None/None"
    )
    internal = method.path.lstrip("/")
    for spelling in SPELLINGS:
        path = spelling.format(public=public.lstrip("/"), internal=internal, upper=internal.upper())
        yield f"{edge}{method.edge_path.rpartition('/')[0]}/{path}"
        yield f"{edge}/v1.0/invoke/{method.service.app_id}/method/{path}"
