"""Propagation of `traceparent`, with and without recorded spans."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from services.kit.telemetry import tracing as telemetry
from services.kit.telemetry.tracing import TelemetryMiddleware, current_traceparent, span, span_from
from tests.requirements import requirement

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


async def through_middleware(traceparent: str | None) -> str | None:
    seen: list[str | None] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with span("inner", step=1):
            seen.append(current_traceparent())
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        del message

    headers = [(b"traceparent", traceparent.encode())] if traceparent else []
    scope = {"type": "http", "method": "POST", "path": "/x", "headers": headers}
    await TelemetryMiddleware(app)(scope, receive, send)
    return seen[0]


def test_no_span_is_recorded_without_an_exporter() -> None:
    assert not telemetry.is_tracing()
    with span("step") as recorded:
        assert not recorded.is_recording()
    assert current_traceparent() is None


async def test_without_an_exporter_the_traceparent_is_propagated() -> None:
    assert await through_middleware(TRACEPARENT) == TRACEPARENT
    assert current_traceparent() is None
    assert await through_middleware(None) is None


@pytest.mark.parametrize(
    "sent", ["garbage", TRACEPARENT + "\r\nx: y", f"00-{'0' * 32}-{PARENT}-01", TRACEPARENT.upper()]
)
async def test_a_malformed_traceparent_is_not_propagated(sent: str) -> None:
    assert await through_middleware(sent) is None


def test_span_from_continues_the_trace_in_another_thread_or_loop() -> None:
    with span_from(TRACEPARENT, "segment", turn_id="t"):
        assert current_traceparent() == TRACEPARENT
    with span_from(None, "segment"):
        assert current_traceparent() is None


RECORDING = """
import asyncio, threading
from services.kit.telemetry.tracing import *
configure_telemetry("llm")
async def app(scope, receive, send):
    scope["route"] = type("Route", (), {"path": "/x/{id}"})
    with span("outer"):
        carried = current_traceparent()
        def elsewhere():
            with span_from(carried, "segment", turn_id="t1"):
                try:
                    with span("model.call", **{"gen_ai.request.model": "m"}):
                        raise ValueError("sk-canary-secret")
                except ValueError:
                    pass
        thread = threading.Thread(target=elsewhere); thread.start(); thread.join()
    await send({"type": "http.response.start", "status": 503, "headers": []})
async def send(message): pass
scope = {"type": "http", "method": "POST", "path": "/x/7", "headers": [(b"traceparent", b"%s")]}
asyncio.run(TelemetryMiddleware(app)(scope, send, send))
asyncio.run(TelemetryMiddleware(app)({**scope, "path": "/healthz"}, send, send))
"""


@requirement("kit:telemetry")
@pytest.mark.timeout(20)
def test_spans_of_one_request_form_one_tree_across_threads(tmp_path: Path) -> None:
    file = tmp_path / "spans.jsonl"
    subprocess.run(
        [sys.executable, "-c", RECORDING % TRACEPARENT],
        check=True,
        env={**os.environ, "YOCASO_TRACE_FILE": str(file)},
    )
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    spans = {row["name"]: row for row in rows if row["context"]["trace_id"] == f"0x{TRACE}"}
    server, outer, segment, call = (
        spans[each] for each in ("POST /x/{id}", "outer", "segment", "model.call")
    )
    parents = [each["parent_id"] for each in (server, outer, segment, call)]
    ids = [each["context"]["span_id"] for each in (server, outer, segment)]
    assert parents == [f"0x{PARENT}", *ids]
    assert server["attributes"]["http.response.status_code"] == 503
    assert server["resource"]["attributes"]["service.name"] == "llm"
    assert call["attributes"] == {"gen_ai.request.model": "m", "error.type": "ValueError"}
    assert "sk-canary-secret" not in file.read_text()
