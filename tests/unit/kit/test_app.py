"""The middleware of every route: sidecar token, caller identity, body limit."""

from collections.abc import Callable

import pytest
from fastapi import FastAPI, Request
from starlette.types import Message, Receive, Scope, Send

from services.kit.access.identity import CallerIdentity, TrustedApps, caller_of
from services.kit.errors import ErrorCode, RpcError
from services.kit.http.app import BodyLimit, SidecarToken
from services.kit.http.dependencies import provide
from tests.requirements import requirement

Header = tuple[bytes, bytes]
EDGE = (b"dapr-caller-app-id", b"edge")
BACKEND = (b"dapr-caller-app-id", b"backend")
ALICE = (b"x-user-id", b"alice")
SCOPES = (b"x-scopes", b"read write")


def caller(*headers: Header, path: str = "/open") -> CallerIdentity:
    app = FastAPI()
    provide(app, TrustedApps(edge="edge", callers={"/open": ("backend", "edge"), "/closed": ()}))
    scope = {"type": "http", "path": path, "headers": list(headers), "app": app}
    return caller_of(Request(scope))


def test_identity_headers_from_the_edge_are_accepted() -> None:
    found = caller(EDGE, ALICE, (b"x-user-email", b"a@b.c"), (b"x-scopes", b"read write"))
    assert found == CallerIdentity("alice", "a@b.c", frozenset({"read", "write"}))
    assert caller(EDGE, ALICE) == CallerIdentity("alice", "", frozenset())
    assert caller(EDGE, ALICE, (b"x-user-email", "ä@b.c".encode())).email == "ä@b.c"


@requirement("kit:identity")
def test_an_app_that_may_call_the_method_acts_for_a_user_and_is_named() -> None:
    found = caller(BACKEND, ALICE, SCOPES, (b"x-user-email", b"a@b.c"), (b"x-key-id", b"key_1"))
    assert found == CallerIdentity(
        "alice", "a@b.c", frozenset({"read", "write"}), "key_1", "backend"
    )
    assert caller(BACKEND, ALICE, SCOPES).audit_details == {"app": "backend"}
    assert caller(EDGE, ALICE, SCOPES).audit_details == {}


@requirement("kit:identity")
def test_an_app_acts_for_a_user_only_where_it_may_call() -> None:
    for path in ("/closed", "/unknown", "/open/", "/Open"):
        with pytest.raises(RpcError) as refused:
            caller(BACKEND, ALICE, SCOPES, path=path)
        assert refused.value.code is ErrorCode.UNAUTHENTICATED
    assert caller(EDGE, ALICE, path="/closed").user_id == "alice"


@requirement("kit:identity")
@pytest.mark.parametrize(
    "headers",
    [
        (BACKEND, SCOPES),
        (BACKEND, ALICE),
        (BACKEND, ALICE, SCOPES, SCOPES),
        (BACKEND, ALICE, (b"x-scopes", b"read, write")),
        (BACKEND, ALICE, ALICE, SCOPES),
        (BACKEND, ALICE, SCOPES, (b"x-user-email", b"a@b.c, d@b.c")),
        (BACKEND, ALICE, SCOPES, (b"x-key-id", b"key_1"), (b"x-key-id", b"key_2")),
        (BACKEND, BACKEND, ALICE, SCOPES),
        (BACKEND, EDGE, ALICE, SCOPES),
        ((b"dapr-caller-app-id", b"backend,edge"), ALICE, SCOPES),
        ((b"dapr-caller-app-id", b"Backend"), ALICE, SCOPES),
        ((b"dapr-caller-app-id", b""), ALICE, SCOPES),
        (ALICE, SCOPES),
    ],
)
def test_an_incomplete_or_repeated_identity_from_an_app_is_refused(
    headers: tuple[Header, ...],
) -> None:
    with pytest.raises(RpcError) as refused:
        caller(*headers)
    assert refused.value.code is ErrorCode.UNAUTHENTICATED


@requirement("kit:identity")
@pytest.mark.parametrize(
    "headers",
    [
        (ALICE,),
        ((b"dapr-caller-app-id", b"other"), ALICE),
        ((b"dapr-caller-app-id", b"Edge"), ALICE),
        (EDGE,),
        (EDGE, (b"x-user-id", b"")),
        (EDGE, (b"x-user-id", b"  ")),
        (EDGE, ALICE, ALICE),
        (EDGE, ALICE, (b"x-user-id", b"bob")),
        (EDGE, (b"x-user-id", b"alice,bob")),
        (EDGE, (b"x-user-id", b"alice, bob")),
        (EDGE, (b"x-user-id", b"alice\r\nx-scopes: all")),
        (EDGE, (b"x-user-id", b"alice\n")),
        (EDGE, (b"x-user-id", "älice".encode("latin-1"))),
        (EDGE, (b"x-user-id", b"a" * 129)),
        (EDGE, (b"x-user-id", b"../head")),
        (EDGE, ALICE, (b"x-user-email", b"a"), (b"x-user-email", b"b")),
        (EDGE, ALICE, (b"x-scopes", b"a"), (b"x-scopes", b"b")),
    ],
)
def test_an_ambiguous_identity_is_refused(headers: tuple[Header, ...]) -> None:
    with pytest.raises(RpcError) as refused:
        caller(*headers)
    assert refused.value.code is ErrorCode.UNAUTHENTICATED


async def ok(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that reads the whole body and answers 200."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def status(app: Callable, path: str, headers: list[Header], *pieces: bytes) -> int:
    queue = [
        {"type": "http.request", "body": piece, "more_body": number < len(pieces)}
        for number, piece in enumerate(pieces, 1)
    ] or [{"type": "http.request", "body": b""}]
    sent: list[Message] = []

    async def receive() -> Message:
        return queue.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "path": path, "method": "POST", "headers": headers}
    try:
        await app(scope, receive, send)
    except RpcError as error:  # the app's exception handlers
        return error.status
    return sent[0]["status"]


@requirement("kit:app-token")
@pytest.mark.parametrize(
    ("path", "headers", "expected"),
    [
        ("/m", [(b"dapr-api-token", b"secret")], 200),
        ("/m", [], 401),
        ("/m", [(b"dapr-api-token", b"")], 401),
        ("/m", [(b"dapr-api-token", b"secre")], 401),
        ("/m", [(b"dapr-api-token", b"secrets")], 401),
        ("/m", [(b"dapr-api-token", b"\xff\xfe")], 401),
        ("/m", [(b"dapr-api-token", b"secret"), (b"dapr-api-token", b"secret")], 401),
        ("/healthz", [], 200),
        ("/healthz/", [], 401),
    ],
)
async def test_only_the_sidecar_is_admitted(
    path: str, headers: list[Header], expected: int
) -> None:
    app = SidecarToken(ok, "secret", {"/healthz"})
    assert await status(app, path, headers) == expected


@pytest.mark.parametrize(
    ("headers", "pieces", "expected"),
    [
        ([], [b"x" * 10], 200),
        ([(b"content-length", b"10")], [b"x" * 10], 200),
        ([(b"content-length", b"11")], [b"x" * 11], 413),
        ([], [b"x" * 6, b"x" * 5], 413),
        ([(b"content-length", b"1")], [b"x" * 6, b"x" * 5], 413),
        ([(b"transfer-encoding", b"chunked")], [b"x"] * 11, 413),
        ([(b"transfer-encoding", b"chunked")], [b"x"] * 10, 200),
    ],
)
async def test_a_body_is_limited_by_length_and_while_received(
    headers: list[Header], pieces: list[bytes], expected: int
) -> None:
    assert await status(BodyLimit(ok, 10), "/m", headers, *pieces) == expected
