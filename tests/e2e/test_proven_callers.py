"""The secure profile: sidecars prove who they are by certificates, and do only what the access policies allow."""

import os
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any, Final

import aiohttp
import grpc.aio
import pytest

from services.cli.stack.ports import LOOPBACK
from services.contracts.policies import may_call
from services.contracts.services import SERVICES
from services.kit.contract import RpcMethod, RpcService
from tests.e2e.talk import ask
from tests.requirements import requirement
from tests.support.platform import Client, Platform

OFFSET: Final = 13_000
CALLERS: Final = ("edge", "auth", "llm", "workflows")
VERBS: Final = ("POST", "GET", "PUT", "DELETE", "PATCH")
CELLS: Final = [
    (caller, service, method)
    for service in SERVICES
    for method in service.methods
    for caller in CALLERS
    if caller != service.app_id  # a sidecar calls its own app without asking anybody
]


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform of its own, with certificates."""
    running = Platform(tmp_path_factory.mktemp("secure"), OFFSET, secure=True)
    running.start()
    yield running
    running.stop()


@pytest.fixture
async def ada(secure: Platform) -> AsyncIterator[Client]:
    async with secure.client(f"ada-{uuid.uuid4().hex[:8]}") as client:
        yield client


async def invoked(
    platform: Platform, http: aiohttp.ClientSession, caller: str, target: str, verb: str, path: str
) -> tuple[int, Any]:
    """A service invocation as the app of a sidecar makes it."""
    url = f"{platform.stack.url(f'{caller}-daprd')}/v1.0/invoke/{target}/method{path}"
    headers = {"dapr-api-token": platform.stack.api_token(caller)}
    async with http.request(verb, url, headers=headers, json={}) as reply:
        text = await reply.text()
        return reply.status, text


def refused_by_sidecar(status: int, text: str) -> bool:
    """Refused before any app was reached: an app answers with an RpcError."""
    return status in (403, 404) and '"error"' not in text


@requirement("access:proven-callers")
async def test_turns_are_answered_and_streamed(ada: Client) -> None:
    conversation = await ada.conversation()
    assert (await ask(ada, conversation, "hello")).text == "You said: hello"
    sent = await ada.must("SendMessage", conversationId=conversation, text="again")
    assert sent["turn"]["status"] == "COMPLETED"


@requirement("access:proven-callers")
async def test_a_call_reaches_an_app_where_the_contract_allows_it_and_nowhere_else(
    secure: Platform, ada: Client
) -> None:
    tried = 0
    for caller, service, method in CELLS:
        wanted = may_call(caller, method) and caller != "workflows"
        for verb in VERBS:
            may = wanted and verb in (("POST", "GET") if method.stream else ("POST",))
            found = await invoked(
                secure, ada.session, caller, service.app_id, verb, service.path(method)
            )
            assert refused_by_sidecar(*found) is not may, (caller, method.name, verb, found)
            tried += 1
    assert tried == len(CELLS) * len(VERBS)


@requirement("access:proven-callers")
async def test_no_spelling_of_a_path_passes_the_policies(secure: Platform, ada: Client) -> None:
    service, method = internal_of("auth")
    public = "/yocaso.auth.v1.TokenService/ExchangeToken"
    path = service.path(method)
    for detour in (
        f"{public}/../..{path}",
        f"{public}/%2e%2e/%2e%2e{path}",
        f"{public}%2f..%2f..{path}",
        f"/{path}",
        f"{path}/",
        path.upper(),
        path.replace("/", "%2f"),
        f"{path};{public}",
    ):
        status, text = await invoked(secure, ada.session, "edge", "auth", "POST", detour)
        assert status in (400, 403, 404), (detour, status, text)


@requirement("access:proven-callers")
def test_nobody_gets_a_certificate_for_another_app(secure: Platform) -> None:
    spec = secure.stack.spec("llm-daprd")
    ports = iter(range(19_950, 19_960))
    flags = {"--app-id": "edge"} | {
        flag: str(next(ports))
        for flag in (
            *("--app-port", "--dapr-http-port", "--dapr-grpc-port"),
            *("--dapr-internal-grpc-port", "--metrics-port"),
        )
    }
    argv = list(spec.argv)
    for flag, value in flags.items():
        argv[argv.index(flag) + 1] = value
    posing = replace(spec, argv=tuple(argv))
    ended = subprocess.run(
        posing.argv,
        env={**os.environ, **posing.env},
        cwd=posing.cwd,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode != 0
    assert "token validation failed" in ended.stdout + ended.stderr


@requirement("access:proven-callers")
@pytest.mark.parametrize("app", CALLERS)
async def test_a_sidecar_takes_no_call_without_a_certificate(secure: Platform, app: str) -> None:
    port = secure.stack.spec(f"{app}-daprd").ports[f"internal gRPC of the sidecar of {app}"]
    async with grpc.aio.insecure_channel(f"{LOOPBACK}:{port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary("/dapr.proto.internals.v1.ServiceInvocation/CallLocal")(
                b"", timeout=5
            )
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def internal_of(app: str) -> tuple[RpcService, RpcMethod]:
    """An internal method that the edge may not call."""
    return next(
        (service, method)
        for service in SERVICES
        for method in service.methods
        if service.app_id == app and method.internal and "edge" not in method.callers
    )
