"""The edge: tokens, identity headers, limits, errors, CORS and the OpenAPI document."""

import base64
import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey
from multidict import CIMultiDict

from services.contracts import apps
from services.contracts.llm.conversations import CONVERSATION_SERVICE, CONVERSATIONS_READ
from tests.e2e.actions import prompt, user_of
from tests.requirements import requirement
from tests.support.platform import Client, Platform
from tests.support.wait import wait_until

DOCUMENT = Path(__file__).parents[2] / "services/contracts/openapi/yocaso.json"
MAX_BODY_BYTES = 1024 * 1024
APPS = [app.id for app in apps.APPS if not app.is_edge]
KEYS = "/.well-known/jwks.json"


async def get_keys(platform: Platform, http: aiohttp.ClientSession) -> list[dict[str, Any]]:
    async with http.get(platform.edge_url + KEYS) as reply:
        assert reply.status == 200
        return (await reply.json())["keys"]


def claims(user: str, **other: Any) -> dict[str, Any]:
    now = int(time.time())
    good = {"iss": "yocaso", "aud": "yocaso", "sub": user, "iat": now, "exp": now + 600}
    return {**good, "email": "a@example.com", "scope": CONVERSATIONS_READ, **other}


def forgeries(token: str, key: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Forged tokens, each with what is wrong."""
    head, payload, signature = token.split(".")
    payload_claims = json.loads(base64.urlsafe_b64decode(payload + "=="))

    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    yield "no token", ""
    yield "not a token", "abc"
    yield "another user", f"{head}.{part({**payload_claims, 'sub': 'root'})}.{signature}"
    yield (
        "a longer life",
        f"{head}.{part({**payload_claims, 'exp': payload_claims['exp'] + 1})}.{signature}",
    )
    yield "no signature", f"{head}.{payload}."
    yield "no algorithm", f"{part({'alg': 'none'})}.{payload}."
    own = RSAKey.generate_key(2048)
    wrong = {"alg": "RS256", "kid": key["kid"]}
    yield "a key of its own", jwt.encode(wrong, claims("root"), own)
    yield "an unknown key", jwt.encode({"alg": "RS256", "kid": "none"}, claims("root"), own)
    public = RSAKey.import_key(key).as_pem(private=False)
    secret = OctKey.import_key(base64.b64encode(public))
    yield (
        "the public key as secret",
        jwt.encode({"alg": "HS256", "kid": key["kid"]}, claims("root"), secret),
    )
    yield "two tokens", f"{token} {token}"


@requirement("edge:jwt", "edge:errors")
async def test_a_forged_token_is_refused(platform: Platform, alice: Client) -> None:
    [key, *_] = await get_keys(platform, alice.session)
    for what, token in forgeries(alice.token, key):
        sent = {"authorization": f"Bearer {token}"} if token else {}
        path = alice.path("ListConversations")
        async with alice.session.post(path, json={}, headers=sent) as reply:
            assert reply.status == 401, what
            assert (await reply.json())["error"]["code"] == "UNAUTHENTICATED", what
            assert reply.headers["www-authenticate"] == "Bearer", what


BAD_CLAIMS: list[dict[str, Any]] = [
    {"exp": -60},
    {"nbf": 3600},
    {"exp": None},
    {"sub": None},
    {"sub": ""},
    {"sub": "two words"},
    {"sub": "a,b"},
    {"iss": "somebody"},
    {"aud": "something"},
]


@requirement("edge:jwt")
async def test_an_expired_early_or_foreign_token_is_refused(
    alice: Client, sign: Callable[[dict[str, Any]], str]
) -> None:
    async def status(**other: Any) -> int:
        said = {
            name: value for name, value in claims("carol", **other).items() if value is not None
        }
        headers = {"authorization": f"Bearer {sign(said)}"}
        path = alice.path("ListConversations")
        async with alice.session.post(path, json={}, headers=headers) as reply:
            return reply.status

    assert await status() == 200
    now = int(time.time())
    for bad in BAD_CLAIMS:
        dated = {
            name: now + value if isinstance(value, int) else value for name, value in bad.items()
        }
        assert await status(**dated) == 401, bad


@requirement("edge:jwt")
async def test_the_jwks_is_public_and_has_no_private_key(platform: Platform, alice: Client) -> None:
    for key in await get_keys(platform, alice.session):
        assert {"kty", "kid", "n", "e"} <= key.keys()
        assert not {"d", "p", "q", "dp", "dq", "qi"} & key.keys()


@requirement("edge:identity-headers", "kit:identity")
@pytest.mark.parametrize(
    "name",
    ["X-User-Id", "x-user-id", "X_User_Id", "X-USER_ID", "x_user-id", "Dapr-Caller-App-Id"],
)
async def test_identity_headers_of_a_client_are_ignored(
    alice: Client, bob: Client, conversation: str, name: str
) -> None:
    forged = {name: user_of(alice), name.replace("I", "i") + "": user_of(alice)}
    stolen = await bob.call("GetConversation", forged, conversationId=conversation)
    assert stolen.code == "NOT_FOUND"
    assert (await bob.call("ListConversations", forged)).body["conversations"] == []
    mine = await alice.call("GetConversation", {name: user_of(bob)}, conversationId=conversation)
    assert mine.status == 200


@requirement("edge:identity-headers", "kit:identity")
@pytest.mark.parametrize(
    ("identity", "status"),
    [
        ([("x-user-id", "carol")], 200),
        ([], 401),
        ([("x-user-id", "")], 401),
        ([("x-user-id", "carol"), ("x-user-id", "dave")], 401),
        ([("x-user-id", "carol"), ("x-user-id", "carol")], 401),
        ([("x-user-id", "carol,dave")], 401),
        ([("x-user-id", "carol dave")], 401),
        ([("x-user-id", "x" * 129)], 401),
    ],
)
async def test_an_app_accepts_only_one_complete_identity(
    own_platform: Platform, alice: Client, identity: list[tuple[str, str]], status: int
) -> None:
    said = [("x-scopes", CONVERSATIONS_READ), *identity]
    assert (await inside(own_platform, alice.session, "edge", said))[0] == status


async def inside(
    platform: Platform, http: aiohttp.ClientSession, app: str, identity: list[tuple[str, str]]
) -> tuple[int, Any]:
    """List conversations by service invocation from an app's sidecar."""
    url = platform.stack.url(f"{app}-daprd")
    path = f"/v1.0/invoke/llm/method{CONVERSATION_SERVICE['ListConversations'].path}"
    headers = CIMultiDict([("dapr-api-token", platform.stack.api_token(app)), *identity])
    async with http.post(url + path, json={}, headers=headers) as reply:
        return reply.status, await reply.json()


@requirement("kit:app-token")
@pytest.mark.parametrize("app", APPS)
@pytest.mark.parametrize("path", [CONVERSATION_SERVICE["SendMessage"].path, "/dapr/config"])
async def test_an_app_accepts_only_its_own_sidecars_token(
    own_platform: Platform, alice: Client, app: str, path: str
) -> None:
    other = "auth" if app != "auth" else "llm"
    for token in (None, "", "wrong", own_platform.stack.app_token(other)):
        headers = {"x-user-id": "carol", "dapr-caller-app-id": "edge"}
        if token is not None:
            headers["dapr-api-token"] = token
        url = own_platform.stack.url(app) + path
        async with alice.session.post(url, json={}, headers=headers) as reply:
            assert (reply.status, (await reply.json())["error"]["code"]) == (401, "UNAUTHENTICATED")


@requirement("kit:app-token")
@pytest.mark.parametrize("app", APPS)
async def test_health_needs_no_token(own_platform: Platform, alice: Client, app: str) -> None:
    async with alice.session.get(own_platform.stack.url(app) + "/healthz") as reply:
        assert reply.status == 204


@requirement("kit:app-token")
@pytest.mark.parametrize("app", [*APPS, apps.EDGE.id])
async def test_a_sidecar_refuses_a_call_without_its_token(
    own_platform: Platform, alice: Client, app: str
) -> None:
    url = own_platform.stack.url(f"{app}-daprd")
    for path in ("/v1.0/metadata", "/v1.0/state/statestore/x", "/v1.0/secrets/secrets/bulk"):
        for headers in ({}, {"dapr-api-token": "wrong"}):
            async with alice.session.get(url + path, headers=headers) as reply:
                assert reply.status == 401, path


@requirement("edge:errors")
@pytest.mark.parametrize(
    ("verb", "path", "status", "code"),
    [
        ("GET", "/", 404, "NOT_FOUND"),
        ("POST", "/api/v1/llm/conversation/no-such-method", 404, "NOT_FOUND"),
        ("POST", "/api/v1/auth/token/issue-local-token", 404, "NOT_FOUND"),
        ("POST", "/api/v1/workflows/workflow/start-workflow", 404, "NOT_FOUND"),
        ("POST", CONVERSATION_SERVICE["SendMessage"].path, 404, "NOT_FOUND"),
        ("POST", "/v1.0/invoke/llm/method/healthz", 404, "NOT_FOUND"),
        ("GET", "/api/v1/llm/conversation/send-message", 405, "UNIMPLEMENTED"),
        ("DELETE", "/api/v1/llm/conversation/stream-events", 405, "UNIMPLEMENTED"),
    ],
)
async def test_a_path_without_a_public_method_is_an_rpc_error(
    alice: Client, verb: str, path: str, status: int, code: str
) -> None:
    async with alice.session.request(verb, alice.url + path, headers=alice.headers()) as reply:
        error = (await reply.json())["error"]
        assert (reply.status, error["code"], error["isTerminal"]) == (status, code, True)
        assert reply.headers["x-request-id"]


@requirement("edge:limits", "edge:errors")
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_a_mebibyte_is_refused_at_the_edge(
    alice: Client, conversation: str, chunked: bool
) -> None:
    body = json.dumps({"conversationId": conversation, "text": "x" * MAX_BODY_BYTES}).encode()

    async def pieces() -> Any:
        for start in range(0, len(body), 65_536):
            yield body[start : start + 65_536]

    headers = alice.headers({"content-type": "application/json"})
    sent = pieces() if chunked else io.BytesIO(body)
    path = alice.path("AppendMessage")
    async with alice.session.post(path, data=sent, headers=headers) as reply:
        assert (reply.status, (await reply.json())["error"]["code"]) == (413, "PAYLOAD_TOO_LARGE")
    view = await alice.must("GetConversation", conversationId=conversation)
    assert view["messageCount"] == "0"


@requirement("edge:limits")
@pytest.mark.parametrize(("size", "status"), [(20_000, 200), (40_000, 413), (65_536, 413)])
async def test_a_query_is_bounded(alice: Client, conversation: str, size: int, status: int) -> None:
    query = {"conversationId": conversation, "text": "x" * size}
    headers = alice.headers({"accept": "text/event-stream"})
    path = alice.path("StreamMessage")
    async with alice.session.get(path, params=query, headers=headers) as reply:
        assert reply.status == status
        if status != 200:
            assert (await reply.json())["error"]["code"] == "PAYLOAD_TOO_LARGE"


@requirement("edge:limits")
async def test_headers_are_bounded(alice: Client) -> None:
    headers = {**alice.headers(), "x-long": "x" * 100_000}
    async with alice.session.post(
        alice.path("ListConversations"), json={}, headers=headers
    ) as reply:
        assert reply.status == 431


@requirement("edge:cors")
async def test_a_preflight_of_an_allowed_origin_is_accepted(alice: Client) -> None:
    asked = {
        "origin": "http://localhost:3000",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,idempotency-key,last-event-id",
    }
    path = alice.path("SendMessage")
    async with alice.session.options(path, headers=asked) as reply:
        assert reply.status in (200, 204)
        assert reply.headers["access-control-allow-origin"] == "http://localhost:3000"
        allowed = reply.headers["access-control-allow-headers"].lower()
        assert "idempotency-key" in allowed
        assert "access-control-allow-credentials" not in reply.headers
    answer = await alice.call("ListConversations", {"origin": "http://localhost:3000"})
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert "retry-after" in answer.headers["access-control-expose-headers"].lower()


@requirement("edge:cors")
async def test_a_preflight_of_another_origin_is_refused(alice: Client) -> None:
    foreign = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    async with alice.session.options(alice.path("SendMessage"), headers=foreign) as reply:
        assert "access-control-allow-origin" not in reply.headers


@requirement("edge:openapi")
async def test_the_committed_openapi_document_is_served_and_shown(alice: Client) -> None:
    async with alice.session.get(alice.url + "/openapi.json") as reply:
        assert await reply.json() == json.loads(DOCUMENT.read_text())
    async with alice.session.get(alice.url + "/docs") as reply:
        assert (reply.status, reply.content_type) == (200, "text/html")
        assert "/openapi.json" in await reply.text()


@requirement("edge:client-gone")
async def test_a_disconnected_reader_leaves_no_open_stream(
    own_platform: Platform, alice: Client, conversation: str
) -> None:
    gate = f"gone-{conversation}"
    body = {"conversationId": conversation, "text": prompt(tokens=2, gate=gate).text}
    async with alice.stream("StreamMessage", onDisconnect="CANCEL", **body) as reply:
        assert reply.status == 200
        await own_platform.wait_held(gate)

    async def stopped() -> bool:
        view = await alice.must("GetConversation", conversationId=conversation)
        return "activeTurnId" not in view

    await wait_until(stopped, what="the turn of the disconnected reader to end")
