"""The secure profile: sidecars authenticate by certificates, and access policies limit their calls."""

import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any, Final

import aiohttp
import grpc.aio
import pytest
from yarl import URL

from services.cli.stack.ports import LOOPBACK
from services.contracts.apps import APPS, EDGE, METHODS, app_of, callers_of
from services.contracts.auth.audit import AUDIT_SERVICE
from services.contracts.llm.conversations import (
    CONVERSATIONS_READ,
    CONVERSATIONS_WRITE,
    DELETE_CONVERSATION,
    GET_CONVERSATION,
)
from services.contracts.llm.turns import RUN_TURN
from services.kit.access.identity import CallerIdentity
from services.kit.contract import AnyMethod
from services.kit.dapr.client import RpcClient
from tests.chaos.faults import until_tokens_issued
from tests.e2e.actions import ask
from tests.requirements import requirement
from tests.support.foreign import ForeignSidecar
from tests.support.platform import ROOT, Client, Platform
from tests.support.readme import example_of
from tests.support.wait import wait_until

OFFSET: Final = 13_000
CALLERS: Final = tuple(app.id for app in APPS)
VERBS: Final = ("POST", "GET", "PUT", "DELETE", "PATCH")
CELLS: Final = [
    (caller, method)
    for method in METHODS
    for caller in CALLERS
    if caller != method.service.app_id  # a sidecar calls its own app without a policy check
]
UNREACHABLE: Final = [
    method
    for method in app_of("auth").methods
    if EDGE.id not in callers_of(method) and any(not m.internal for m in method.service.methods)
]
"""Methods of `auth` that the edge may not call, in services with methods that it may call."""
SPELLINGS: Final = (
    "{public}/../..{internal}",
    "{public}/%2e%2e/%2e%2e{internal}",
    "{public}%2f..%2f..{internal}",
    "{public}/..%2f..{internal}",
    "{public}/..;/..{internal}",
    "{public}/%252e%252e/%252e%252e{internal}",
    "{public}\\..\\..{internal}",
    "/{internal}",
    "//{internal}//",
    "{internal}/",
    "{internal};{public}",
    "{internal}?x={public}",
    "{internal}%00",
    "{internal}%3f",
    "{internal}%23{public}",
    "{internal}%252f",
    "{upper}",
    "{lower}",
    "{{slashes}}",
)


BACK_END: Final = "backend"
BACK_END_PORT: Final = 17_300


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform with certificates, which trusts one back end."""
    running = Platform(
        tmp_path_factory.mktemp("secure"), OFFSET, secure=True, trusted_apps=(BACK_END,)
    )
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def back_end(secure: Platform) -> Iterator[ForeignSidecar]:
    """The sidecar of the trusted back end."""
    sidecar = ForeignSidecar(secure.stack.state.path, BACK_END, BACK_END_PORT)
    try:
        sidecar.start()
        sidecar.wait_ready()
        yield sidecar
    finally:
        sidecar.stop()


@pytest.fixture
async def ada(secure: Platform) -> AsyncIterator[Client]:
    async with secure.client(f"ada-{uuid.uuid4().hex[:8]}") as client:
        yield client


async def invoked(
    platform: Platform,
    http: aiohttp.ClientSession,
    caller: str | ForeignSidecar,
    target: str,
    verb: str,
    path: str,
    headers: dict[str, str] | None = None,
) -> tuple[int, Any]:
    """A service invocation from an app's sidecar, with the path unnormalized."""
    if isinstance(caller, ForeignSidecar):
        sidecar, token = f"http://{LOOPBACK}:{caller.port}", caller.token
    else:
        sidecar = platform.stack.url(f"{caller}-daprd")
        token = platform.stack.api_token(caller)
    url = f"{sidecar}/v1.0/invoke/{target}/method{path}"
    own = {"dapr-api-token": token, **(headers or {})}
    async with http.request(verb, URL(url, encoded=True), headers=own, json={}) as reply:
        return reply.status, await reply.text()


def refused_by_sidecar(status: int, text: str) -> bool:
    """Whether a sidecar refused the call; an app would answer with an RpcError."""
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
    for caller, method in CELLS:
        wanted = caller in callers_of(method)
        for verb in VERBS:
            allowed = wanted and verb in (("POST", "GET") if method.is_stream else ("POST",))
            found = await invoked(
                secure, ada.session, caller, method.service.app_id, verb, method.path
            )
            assert refused_by_sidecar(*found) is not allowed, (caller, method.name, verb, found)
            tried += 1
    assert tried == len(CELLS) * len(VERBS)


@requirement("access:trusted-apps")
async def test_a_trusted_back_end_reaches_every_user_facing_method_and_no_other(
    secure: Platform, ada: Client, back_end: ForeignSidecar
) -> None:
    claimed = {"x-user-id": "ada"}  # without scopes, so that no method has an effect
    for method in METHODS:
        for verb in VERBS:
            allowed = method.scope is not None and verb in method.verbs
            found = await invoked(
                secure, ada.session, back_end, method.service.app_id, verb, method.path, claimed
            )
            assert refused_by_sidecar(*found) is not allowed, (method.name, verb, found)
            if allowed:
                assert found[0] == 401, (method.name, verb, found)
                assert "UNAUTHENTICATED" in found[1]


@requirement("access:trusted-apps")
async def test_a_trusted_back_end_acts_for_a_user_with_that_users_rights_and_is_named(
    secure: Platform, ada: Client, back_end: ForeignSidecar
) -> None:
    conversation, eve = await ada.conversation(), f"eve-{uuid.uuid4().hex[:8]}"
    claimed = {"x-user-id": eve, "x-scopes": CONVERSATIONS_READ}

    async def called(method: AnyMethod) -> tuple[int, Any]:
        path, headers = method.path, {**claimed, "content-type": "application/json"}
        url = f"http://{LOOPBACK}:{back_end.port}/v1.0/invoke/llm/method{path}"
        headers["dapr-api-token"] = back_end.token
        body = {"conversationId": conversation}
        async with ada.session.post(url, json=body, headers=headers) as reply:
            return reply.status, await reply.json()

    assert (await called(GET_CONVERSATION))[0] == 404
    assert (await called(DELETE_CONVERSATION))[0] == 403  # needs a scope that was not claimed

    async def denied() -> list[dict[str, Any]] | None:
        answer = await ada.must_of(AUDIT_SERVICE, "ListAuditEvents", action="ACCESS_DENIED")
        return [event for event in answer["events"] if event["actor"] == eve] or None

    recorded: list[dict[str, Any]] = await wait_until(
        denied, 20, "the denial in the owner's audit log"
    )
    assert recorded[0]["details"]["app"] == BACK_END


@requirement("access:trusted-apps", "kit:rpc-client")
async def test_the_example_of_kits_readme_asks_in_a_users_name(
    secure: Platform, back_end: ForeignSidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in back_end.environment.items():
        monkeypatch.setenv(name, value)
    example = example_of(ROOT / "services" / "kit" / "README.md", "Call another app")
    client, key = RpcClient(), uuid.uuid4().hex
    scopes = frozenset({CONVERSATIONS_READ, CONVERSATIONS_WRITE})
    user = CallerIdentity(f"ada-{key[:8]}", "", scopes)
    for _ in range(2):
        assert await example["ask"](client, user, "hello", key) == "You said: hello"
    await client.close()
    async with secure.client(user.user_id) as ada:
        assert len((await ada.must("ListConversations"))["conversations"]) == 1


@requirement("access:proven-callers")
async def test_no_spelling_of_an_internal_path_passes_the_policies(
    secure: Platform, ada: Client
) -> None:
    tried = 0
    for method in UNREACHABLE:
        internal = method.path
        public = next(each.path for each in method.service.methods if not each.internal)
        for written in SPELLINGS:
            path = written.format(
                public=public, internal=internal, upper=internal.upper(), lower=internal.lower()
            ).replace("{slashes}", internal.replace("/", "%2f"))
            status, text = await invoked(secure, ada.session, "edge", "auth", "POST", path)
            unparsable = status == 500 and "forbidden" in text  # daprd's response to such a path
            no_such = status == 404 and "No such method." in text
            assert status in (400, 403) or no_such or unparsable, (path, status, text)
            tried += 1
    assert tried >= 2 * len(SPELLINGS)


@requirement("access:proven-callers")
@pytest.mark.parametrize("name", ["dapr-caller-app-id", "Dapr-Caller-App-Id", "x-dapr-app-id"])
async def test_a_claimed_app_id_is_ignored(secure: Platform, ada: Client, name: str) -> None:
    for method in UNREACHABLE:
        for said in CALLERS:
            found = await invoked(
                secure, ada.session, "edge", "auth", "POST", method.path, {name: said}
            )
            assert found[0] == 403, (method.name, said, found)
            assert refused_by_sidecar(*found)


@requirement("access:proven-callers")
async def test_only_workflows_may_schedule_an_activity_of_another_app(secure: Platform) -> None:
    secure.stack.halt("auth")  # else the app's own worker could get the workflow
    try:
        outcome = schedule_from(secure, "auth", RUN_TURN.name, RUN_TURN.app_id)
    finally:
        secure.stack.restart("auth")
        await until_tokens_issued(secure)
    assert "access denied by workflow access policy" in outcome


def schedule_from(platform: Platform, app: str, activity: str, host: str) -> str:
    """Outcome of an app's workflow that calls an activity of another app."""
    port = platform.stack.spec(f"{app}-daprd").ports[f"gRPC of the sidecar of {app}"]
    return subprocess.run(
        [sys.executable, "-m", "tests.support.foreign_activity", str(port), activity, host],
        env={**os.environ, "DAPR_API_TOKEN": platform.stack.api_token(app)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=40,
        check=True,
    ).stdout


@requirement("access:proven-callers")
def test_sentry_issues_no_certificate_for_another_app(secure: Platform) -> None:
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
    impostor = replace(spec, argv=tuple(argv))
    ended = subprocess.run(
        impostor.argv,
        env={**os.environ, **impostor.env},
        cwd=impostor.cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode != 0
    assert "token validation failed" in ended.stdout + ended.stderr


@requirement("access:proven-callers")
@pytest.mark.parametrize("app", CALLERS)
async def test_a_sidecar_refuses_a_call_without_a_certificate(secure: Platform, app: str) -> None:
    port = secure.stack.spec(f"{app}-daprd").ports[f"internal gRPC of the sidecar of {app}"]
    async with grpc.aio.insecure_channel(f"{LOOPBACK}:{port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary("/dapr.proto.internals.v1.ServiceInvocation/CallLocal")(
                b"", timeout=20
            )
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
