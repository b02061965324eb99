"""`RpcClient` against a sidecar's wire: headers, wrong use, invalid replies, cut streams."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final

import aiohttp
import pytest
from aiohttp import web

from services.contracts.events import Event
from services.kit.access.identity import CallerIdentity
from services.kit.contract import Empty, Message, RpcService
from services.kit.dapr import client_stream
from services.kit.dapr.client import RpcClient
from services.kit.errors import AnyErrorCode, ErrorCode, RpcError
from services.kit.http.sse_decoder import MAX_EVENT_BYTES
from tests.requirements import requirement
from tests.support.wait import wait_until

pytestmark = pytest.mark.loopback


class Text(Message):
    text: str = ""


SERVICE: Final = RpcService("yocaso.other.v1.TestService", "Test.")
OWN: Final = SERVICE.unary("Own", Text, Text, "Internal", internal=True)
OPEN: Final = SERVICE.unary("Open", Text, Text, "Public", public=True)
READ: Final = SERVICE.unary("Read", Text, Text, "Of a user", scope="x:read")
WRITE: Final = SERVICE.unary("Write", Text, Text, "Once", scope="x:write", idempotent=True)
WATCH: Final = SERVICE.stream("Watch", Text, Event, "Follow", scope="x:read")
BEGIN: Final = SERVICE.stream("Begin", Text, Event, "Begin", scope="x:write", idempotent=True)
ADA: Final = CallerIdentity("ada", "", frozenset({"b", "a"}))
SSE: Final = {"content-type": "text/event-stream"}


class FakeSidecar:
    """Answers the calls of a test in order, and keeps their headers."""

    def __init__(self) -> None:
        self.requests: list[web.Request] = []
        self.answers: list[Callable[[web.Request], Awaitable[web.StreamResponse]]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        await request.read()
        return await self.answers.pop(0)(request)

    def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        async def answer(_: web.Request) -> web.Response:
            return web.Response(status=status, body=body, headers=headers)

        self.answers.append(answer)

    def stream(self, *pieces: bytes, cut: bool = False, hold: bool = False) -> None:
        """Stream pieces, then end; `cut`: without the end of the body; `hold`: send nothing more."""

        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers=SSE)
            await response.prepare(request)
            for piece in pieces:
                await response.write(piece)
            if hold:
                await asyncio.Event().wait()
            if cut and request.transport is not None:
                request.transport.abort()
            return response

        self.answers.append(answer)


@pytest.fixture
def sidecar() -> FakeSidecar:
    return FakeSidecar()


@pytest.fixture
async def client(sidecar: FakeSidecar, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RpcClient]:
    app = web.Application()
    app.router.add_post("/{path:.*}", sidecar.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    monkeypatch.setenv("DAPR_HTTP_PORT", str(runner.addresses[0][1]))
    monkeypatch.setenv("DAPR_API_TOKEN", "token")
    client = RpcClient()
    yield client
    await client.close()
    await runner.cleanup()


def event(seq: int, kind: str = "text.delta") -> bytes:
    data = {"seq": str(seq), "type": kind, "attempt": 1, "data": {}}
    text = json.dumps({**data, "createdAt": "2026-01-01T00:00:00Z"})
    return f"id: {seq}\nevent: {kind}\ndata: {text}\n\n".encode()


END: Final = "run.completed"


def error(code: str) -> bytes:
    status = {"code": code, "message": "m", "isTerminal": False, "details": {}}
    return json.dumps({"error": status}).encode()


async def seqs(client: RpcClient, **options: Any) -> list[int]:
    return [each.seq async for each in client.stream(WATCH, Text(), on_behalf_of=ADA, **options)]


async def code(call: Awaitable[Any]) -> AnyErrorCode:
    with pytest.raises(RpcError) as raised:
        await call
    return raised.value.code


@requirement("kit:rpc-client")
async def test_a_call_sends_the_identity_the_key_and_a_call_id(
    client: RpcClient, sidecar: FakeSidecar
) -> None:
    for _ in range(2):
        sidecar.reply(200, b'{"text":"x","addedLater":[1]}')
    full = CallerIdentity("ada", "a@b.c", frozenset({"b", "a"}), "key_1", "edge-of-another")
    found = await client.call(WRITE, Text(text="y"), on_behalf_of=full, idempotency_key="k")
    await client.call(OWN, Text())
    assert found == Text(text="x")
    first, second = [request.headers for request in sidecar.requests]
    assert sidecar.requests[0].path == f"/v1.0/invoke/other/method{WRITE.path}"
    assert first["dapr-api-token"] == second["dapr-api-token"] == "token"
    names = ("x-user-id", "x-user-email", "x-scopes", "x-key-id", "idempotency-key")
    assert [first[name] for name in names] == ["ada", "a@b.c", "a b", "key_1", "k"]
    assert [name for name in names if name in second] == []
    assert first["x-call-id"] != second["x-call-id"]


@requirement("kit:rpc-client")
@pytest.mark.parametrize(
    ("method", "request_message", "options", "said"),
    [
        (READ, Text(), {}, "Read needs on_behalf_of"),
        (OWN, Text(), {"on_behalf_of": ADA}, "Own takes no on_behalf_of"),
        (OPEN, Text(), {"on_behalf_of": ADA}, "Open takes no on_behalf_of"),
        (
            READ,
            Text(),
            {"on_behalf_of": ADA, "idempotency_key": "k"},
            "Read takes no idempotency_key",
        ),
        (WRITE, Text(), {"on_behalf_of": ADA, "idempotency_key": ""}, "1 to 255 visible"),
        (WRITE, Text(), {"on_behalf_of": ADA, "idempotency_key": "a\nb"}, "1 to 255 visible"),
        (WRITE, Text(), {"on_behalf_of": ADA, "idempotency_key": "k" * 256}, "1 to 255 visible"),
        (READ, Empty(), {"on_behalf_of": ADA}, "Read takes Text"),
        (WATCH, Text(), {"on_behalf_of": ADA}, "Watch is a stream"),
    ],
)
async def test_wrong_use_is_a_type_error_and_no_call(
    client: RpcClient, method: Any, request_message: Any, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(TypeError, match=said):
        await client.call(method, request_message, **options)


@requirement("kit:rpc-client")
async def test_wrong_use_of_a_stream_is_a_type_error_at_the_call(client: RpcClient) -> None:
    with pytest.raises(TypeError, match="Watch needs on_behalf_of"):
        client.stream(WATCH, Text())
    with pytest.raises(TypeError, match="Watch takes no idempotency_key"):
        client.stream(WATCH, Text(), on_behalf_of=ADA, idempotency_key="k")
    with pytest.raises(TypeError, match="`after` needs the idempotency key"):
        client.stream(BEGIN, Text(), on_behalf_of=ADA, after=3)
    wrong: Any = READ
    with pytest.raises(TypeError, match="Read is not a stream"):
        client.stream(wrong, Text(), on_behalf_of=ADA)


@requirement("kit:rpc-client")
@pytest.mark.parametrize(
    ("method", "status", "body", "expected"),
    [
        (OWN, 200, b"", ErrorCode.UNAVAILABLE),  # daprd's reply for an app that went away
        (OWN, 200, b"<html>", ErrorCode.INTERNAL),
        (OWN, 200, b'{"text":1}', ErrorCode.INTERNAL),
        (OWN, 500, b'{"errorCode":"ERR_DIRECT_INVOKE","message":"x"}', ErrorCode.UNAVAILABLE),
        (OWN, 403, b"", ErrorCode.UNAVAILABLE),
        (OWN, 401, error("UNAUTHENTICATED"), ErrorCode.UNAVAILABLE),
        (OPEN, 401, error("UNAUTHENTICATED"), ErrorCode.UNAUTHENTICATED),
        (OWN, 404, error("NOT_FOUND"), ErrorCode.NOT_FOUND),
        (OWN, 418, error("ADDED_LATER"), ErrorCode.INTERNAL),
    ],
)
async def test_any_reply_becomes_an_error_of_the_catalogue(
    client: RpcClient,
    sidecar: FakeSidecar,
    method: Any,
    status: int,
    body: bytes,
    expected: ErrorCode,
) -> None:
    sidecar.reply(status, body)
    assert await code(client.call(method, Text())) is expected
    assert len(sidecar.requests) == 1


@requirement("kit:rpc-client")
async def test_a_unary_call_is_never_repeated(client: RpcClient, sidecar: FakeSidecar) -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    sidecar.answers.append(cut)
    call = client.call(WRITE, Text(), on_behalf_of=ADA, idempotency_key="k")
    assert await code(call) is ErrorCode.UNAVAILABLE
    assert len(sidecar.requests) == 1
    assert await code(client.call(OWN, Text(), timeout=0)) is ErrorCode.UNAVAILABLE


@requirement("kit:rpc-client")
async def test_a_stream_is_resumed_by_cursor_and_repeats_nothing(
    client: RpcClient, sidecar: FakeSidecar
) -> None:
    sidecar.stream(b": open\n\n", event(1), event(2)[:-9], cut=True)
    sidecar.stream(event(1), event(2), b"event: reconnect\ndata: {}\n\n", event(9))
    sidecar.reply(200, b"", {"content-type": "application/octet-stream"})
    sidecar.reply(500, b"{}")
    sidecar.stream(event(3))
    sidecar.stream(event(3), event(4, END), event(5))
    assert await seqs(client) == [1, 2, 3, 4]
    sent = [request.headers.get("last-event-id") for request in sidecar.requests]
    assert sent == [None, "1", "2", "2", "2", "3"]
    accepted = {request.headers["accept"] for request in sidecar.requests}
    assert accepted == {"text/event-stream, application/json"}


@requirement("kit:rpc-client")
async def test_a_resumed_call_is_the_same_call(client: RpcClient, sidecar: FakeSidecar) -> None:
    sidecar.stream(event(1))
    sidecar.stream(event(2, END))
    read = [each.seq async for each in client.stream(BEGIN, Text(), on_behalf_of=ADA)]
    assert read == [1, 2]
    keys = {request.headers["idempotency-key"] for request in sidecar.requests}
    assert len(keys) == 1
    sidecar.reply(204, b"")
    again = client.stream(BEGIN, Text(), on_behalf_of=ADA, idempotency_key="k", after=2)
    assert [each async for each in again] == []
    last = sidecar.requests[-1].headers
    assert (last["idempotency-key"], last["last-event-id"]) == ("k", "2")


@requirement("kit:rpc-client")
async def test_a_silent_connection_counts_as_lost(
    client: RpcClient, sidecar: FakeSidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_stream, "TIMEOUT", aiohttp.ClientTimeout(sock_read=0.2))
    sidecar.stream(event(1), hold=True)
    sidecar.stream(event(2, END))
    assert await seqs(client) == [1, 2]


@requirement("kit:rpc-client")
async def test_an_endless_event_is_not_kept_in_memory(
    client: RpcClient, sidecar: FakeSidecar
) -> None:
    sidecar.stream(event(1), b"data: " + b"x" * (MAX_EVENT_BYTES + 1))
    sidecar.stream(event(2, END))
    assert await seqs(client) == [1, 2]


@requirement("kit:rpc-client")
async def test_a_slow_consumer_makes_the_app_wait(client: RpcClient, sidecar: FakeSidecar) -> None:
    written = 0
    piece = event(1)[:-2] + b"\n: " + b"x" * 10_000 + b"\n\n"

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse(headers=SSE)
        await response.prepare(request)
        while True:
            await response.write(piece)
            written += len(piece)

    sidecar.answers.append(endless)
    seen = [0, 1]

    def stands_still() -> bool:
        seen.append(written)
        return len(set(seen[-20:])) == 1

    async with aclosing(client.stream(WATCH, Text(), on_behalf_of=ADA)) as events:
        await anext(events)
        await wait_until(stands_still, what="the app to wait")
        assert written < 16 * 1024 * 1024


@requirement("kit:rpc-client")
async def test_only_an_open_stream_is_resumed_and_only_after_a_retryable_error(
    client: RpcClient, sidecar: FakeSidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    sidecar.reply(503, error("UNAVAILABLE"))
    assert await code(seqs(client)) is ErrorCode.UNAVAILABLE
    sidecar.stream(event(1))
    sidecar.reply(429, error("RATE_LIMITED"))
    sidecar.reply(404, error("NOT_FOUND"))
    assert await code(seqs(client)) is ErrorCode.NOT_FOUND
    sidecar.stream(event(1))
    sidecar.reply(503, error("UNAVAILABLE"))
    monkeypatch.setattr(client_stream, "RESUME_SECONDS", 0)
    assert await code(seqs(client)) is ErrorCode.UNAVAILABLE
    assert len(sidecar.requests) == 6


@requirement("kit:rpc-client")
async def test_an_event_that_is_not_the_contracts_is_an_internal_error(
    client: RpcClient, sidecar: FakeSidecar
) -> None:
    sidecar.stream(event(1, "added.later"))
    assert await code(seqs(client)) is ErrorCode.INTERNAL
    sidecar.stream(b"event: error\ndata: " + error("OUT_OF_RANGE") + b"\n\n")
    assert await code(seqs(client)) is ErrorCode.OUT_OF_RANGE
