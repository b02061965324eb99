"""A stream that fails after its first byte ends with the event `error`."""

import json
from collections.abc import AsyncIterator

import pytest

from services.kit.dapr.sidecar import SidecarError
from services.kit.errors import ErrorCode, RpcError
from services.kit.http.rpc import with_error_event
from tests.requirements import requirement
from tests.support.sse import SseParser

FAILURES = [
    (RpcError(ErrorCode.UNAVAILABLE, "away"), "UNAVAILABLE"),
    (SidecarError("UNAVAILABLE: secret host"), "UNAVAILABLE"),
    (KeyError("secret key"), "INTERNAL"),
]


@requirement("events:error")
@pytest.mark.parametrize(("failure", "code"), FAILURES)
async def test_a_failure_midway_is_sent_as_the_last_event(failure: Exception, code: str) -> None:
    closed: list[bool] = []

    async def events() -> AsyncIterator[bytes]:
        try:
            yield b"id: 7\nevent: text.delta\ndata: {}\n\n"
            raise failure
        finally:
            closed.append(True)

    sent = b"".join([piece async for piece in with_error_event(events())])
    seen, last = SseParser().feed(sent)
    assert (seen.id, last.event, last.id) == ("7", "error", None)
    assert last.json()["error"]["code"] == code
    assert "secret" not in json.dumps(last.json())
    assert closed


async def test_a_disconnected_reader_closes_the_source() -> None:
    closed: list[bool] = []

    async def events() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b": keep-alive\n\n"
        finally:
            closed.append(True)

    stream = with_error_event(events())
    await anext(stream)
    await stream.aclose()
    assert closed
