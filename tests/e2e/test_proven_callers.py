"""The secure profile: sidecars authenticate by certificates, and access policies limit their calls."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
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
from tests.e2e.conftest import OFFSET, TRUSTED_APP
from tests.requirements import requirement
from tests.support.concurrency import for_each
from tests.support.foreign import ForeignSidecar
from tests.support.platform import ROOT, Client, Platform
from tests.support.readme import example_of
from tests.support.wait import wait_until

CALLERS: Final = tuple(app.id for app in APPS)
VERBS: Final = ("POST", "GET", "PUT", "DELETE", "PATCH")
CELLS: Final = [
    (caller, method)
    for method in METHODS
    for caller in CALLERS
    if caller != method.service.app_id  # a sidecar calls its own app without a policy check
]
IMPOSTOR_PORT: Final = 7190 + OFFSET
"""Of the first port of a sidecar that gets no certificate."""
Attempt = tuple[str, AnyMethod, str]
"""A caller, a method and a verb."""
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


@pytest.fixture(scope="session")
def back_end(sidecars: dict[str, ForeignSidecar]) -> ForeignSidecar:
    """The sidecar of a trusted back end."""
    return sidecars[TRUSTED_APP]


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


def verbs_of(caller: str, method: AnyMethod) -> tuple[str, ...]:
    """The verbs with which the contract lets an app call a method."""
    return method.verbs if caller in callers_of(method) else ()


def attempts() -> Iterator[Attempt]:
    """Every caller with every method by POST, and by the other verbs where one of them is allowed.

    For each caller and app one method that it may not call is tried by every verb too.
    """
    refused: set[tuple[str, str]] = set()
    for caller, method in CELLS:
        pair = (caller, method.service.app_id)
        every = bool(verbs_of(caller, method)) or pair not in refused
        if not verbs_of(caller, method):
            refused.add(pair)
        yield from ((caller, method, verb) for verb in (VERBS if every else VERBS[:1]))


@requirement("access:proven-callers")
async def test_a_call_reaches_an_app_where_the_contract_allows_it_and_nowhere_else(
    own_platform: Platform, alice: Client
) -> None:
    async def reaches(attempt: Attempt) -> None:
        caller, method, verb = attempt
        found = await invoked(
            own_platform, alice.session, caller, method.service.app_id, verb, method.path
        )
        allowed = verb in verbs_of(caller, method)
        assert refused_by_sidecar(*found) is not allowed, (caller, method.name, verb, found)

    assert await for_each(attempts(), reaches) > len(CELLS)
    assert {(caller, method.name) for caller, method, _ in attempts()} == {
        (caller, method.name) for caller, method in CELLS
    }


@requirement("access:trusted-apps")
async def test_a_trusted_back_end_reaches_every_user_facing_method_and_no_other(
    own_platform: Platform, alice: Client, back_end: ForeignSidecar
) -> None:
    claimed = {"x-user-id": "ada"}  # without scopes, so that no method has an effect

    async def reaches(attempt: tuple[AnyMethod, str]) -> None:
        method, verb = attempt
        allowed = method.scope is not None and verb in method.verbs
        found = await invoked(
            own_platform,
            alice.session,
            back_end,
            method.service.app_id,
            verb,
            method.path,
            claimed,
        )
        assert refused_by_sidecar(*found) is not allowed, (method.name, verb, found)
        if allowed:
            assert found[0] == 401, (method.name, verb, found)
            assert "UNAUTHENTICATED" in found[1]

    await for_each(product(METHODS, VERBS), reaches)


@requirement("access:trusted-apps")
async def test_a_trusted_back_end_acts_for_a_user_with_that_users_rights_and_is_named(
    own_platform: Platform, alice: Client, back_end: ForeignSidecar
) -> None:
    conversation, eve = await alice.conversation(), f"eve-{uuid.uuid4().hex[:8]}"
    claimed = {"x-user-id": eve, "x-scopes": CONVERSATIONS_READ}

    async def called(method: AnyMethod, **said: str) -> tuple[int, Any]:
        path, headers = method.path, {**claimed, **said, "content-type": "application/json"}
        url = f"http://{LOOPBACK}:{back_end.port}/v1.0/invoke/llm/method{path}"
        headers["dapr-api-token"] = back_end.token
        body = {"conversationId": conversation}
        async with alice.session.post(url, json=body, headers=headers) as reply:
            return reply.status, await reply.json()

    assert (await called(GET_CONVERSATION))[0] == 404
    assert (await called(DELETE_CONVERSATION))[0] == 403  # needs a scope that was not claimed
    as_edge = {"dapr-caller-app-id": EDGE.id}  # a second name beside that of the sidecar
    assert (await called(GET_CONVERSATION, **as_edge))[0] == 401

    async def denied() -> list[dict[str, Any]] | None:
        answer = await alice.must_of(AUDIT_SERVICE, "ListAuditEvents", action="ACCESS_DENIED")
        return [event for event in answer["events"] if event["actor"] == eve] or None

    recorded: list[dict[str, Any]] = await wait_until(
        denied, 20, "the denial in the owner's audit log"
    )
    assert recorded[0]["details"]["app"] == TRUSTED_APP


@requirement("access:trusted-apps", "kit:rpc-client")
async def test_the_example_of_kits_readme_asks_in_a_users_name(
    own_platform: Platform, back_end: ForeignSidecar, monkeypatch: pytest.MonkeyPatch
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
    async with own_platform.client(user.user_id) as ada:
        assert len((await ada.must("ListConversations"))["conversations"]) == 1


@requirement("access:proven-callers")
async def test_no_spelling_of_an_internal_path_passes_the_policies(
    own_platform: Platform, alice: Client
) -> None:
    async def refused(path: str) -> None:
        status, text = await invoked(own_platform, alice.session, "edge", "auth", "POST", path)
        unparsable = status == 500 and "forbidden" in text  # daprd's response to such a path
        no_such = status == 404 and "No such method." in text
        assert status in (400, 403) or no_such or unparsable, (path, status, text)

    paths = [path for method in UNREACHABLE for path in spelled(method)]
    assert await for_each(paths, refused) >= 2 * len(SPELLINGS)


def spelled(method: AnyMethod) -> Iterator[str]:
    """Spellings of the path of an internal method."""
    internal = method.path
    public = next(each.path for each in method.service.methods if not each.internal)
    for written in SPELLINGS:
        path = written.format(
            public=public, internal=internal, upper=internal.upper(), lower=internal.lower()
        )
        yield path.replace("{slashes}", internal.replace("/", "%2f"))


@requirement("access:proven-callers")
@pytest.mark.parametrize("name", ["dapr-caller-app-id", "Dapr-Caller-App-Id", "x-dapr-app-id"])
async def test_a_claimed_app_id_is_ignored(
    own_platform: Platform, alice: Client, name: str
) -> None:
    async def refused(attempt: tuple[AnyMethod, str]) -> None:
        method, said = attempt
        found = await invoked(
            own_platform, alice.session, "edge", "auth", "POST", method.path, {name: said}
        )
        assert found[0] == 403, (method.name, said, found)
        assert refused_by_sidecar(*found)

    await for_each(product(UNREACHABLE, CALLERS), refused)


@requirement("access:proven-callers")
@pytest.mark.disturbs
async def test_only_workflows_may_schedule_an_activity_of_another_app(
    own_platform: Platform,
) -> None:
    own_platform.stack.halt("auth")  # else the app's own worker could get the workflow
    try:
        outcome = schedule_from(own_platform, "auth", RUN_TURN.name, RUN_TURN.app_id)
    finally:
        own_platform.stack.restart("auth")
        await until_tokens_issued(own_platform)
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
def test_sentry_issues_no_certificate_for_another_app(own_platform: Platform) -> None:
    spec = own_platform.stack.spec("llm-daprd")
    ports = iter(range(IMPOSTOR_PORT, IMPOSTOR_PORT + 10))
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
async def test_a_sidecar_refuses_a_call_without_a_certificate(
    own_platform: Platform, app: str
) -> None:
    port = own_platform.stack.spec(f"{app}-daprd").ports[f"internal gRPC of the sidecar of {app}"]
    async with grpc.aio.insecure_channel(f"{LOOPBACK}:{port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary("/dapr.proto.internals.v1.ServiceInvocation/CallLocal")(
                b"", timeout=20
            )
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
