"""Traces and metrics by OpenTelemetry.

`OTEL_EXPORTER_OTLP_ENDPOINT` exports both by OTLP; `YOCASO_TRACE_FILE` appends each span as a JSON line. Without either,
the SDK is not loaded and only `traceparent` headers are propagated.
"""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from opentelemetry import context, metrics, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ENDPOINT_VARIABLE: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
FILE_VARIABLE: Final = "YOCASO_TRACE_FILE"
UNTRACED_PATHS: Final = frozenset({"/healthz"})

AttributeValue = str | bool | int | float

_TRACEPARENT: Final = re.compile(
    r"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
_propagator: Final = TraceContextTextMapPropagator()
_tracer: Final = trace.get_tracer("yocaso")
_duration: Final = metrics.get_meter("yocaso").create_histogram(
    "http.server.request.duration", "s", "Duration of HTTP server requests."
)
_passed_on: ContextVar[str | None] = ContextVar("traceparent", default=None)
_active = False


def configure_telemetry(app_id: str) -> None:
    """Start the SDK if the environment names an exporter; repeated calls do nothing."""
    global _active
    endpoint, file = os.environ.get(ENDPOINT_VARIABLE), os.environ.get(FILE_VARIABLE)
    if _active or not (endpoint or file):
        return
    # Imported on demand: the SDK and its exporters take 0.2 s.
    from services.kit.telemetry.sdk import start_sdk

    start_sdk(app_id, to_endpoint=bool(endpoint), file=file)
    _active = True


def is_tracing() -> bool:
    """Whether spans are recorded."""
    return _active


def current_traceparent() -> str | None:
    """The W3C `traceparent` header for an outgoing call, if there is a trace."""
    if not _active:
        return _passed_on.get()
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier.get("traceparent")


@contextmanager
def span(name: str, **attributes: AttributeValue) -> Iterator[Span]:
    """Record a span under the current one. On an exception it gets the type, not the text."""
    if not _active:
        yield trace.INVALID_SPAN
        return
    with _recorded(name, SpanKind.INTERNAL, context.get_current(), attributes) as recorded:
        yield recorded


@contextmanager
def span_from(traceparent: str | None, name: str, **attributes: AttributeValue) -> Iterator[Span]:
    """Record a span whose parent is in another process, thread or event loop."""
    if _active:
        parent = _propagator.extract({"traceparent": traceparent or ""}, context.Context())
        with _recorded(name, SpanKind.INTERNAL, parent, attributes) as recorded:
            yield recorded
        return
    token = _passed_on.set(_checked(traceparent))
    try:
        yield trace.INVALID_SPAN
    finally:
        _passed_on.reset(token)


@contextmanager
def _recorded(
    name: str, kind: SpanKind, parent: context.Context, attributes: dict[str, AttributeValue]
) -> Iterator[Span]:
    recorded = _tracer.start_span(name, parent, kind, attributes)
    token = context.attach(trace.set_span_in_context(recorded, parent))
    try:
        yield recorded
    except BaseException as error:
        recorded.set_attribute("error.type", type(error).__name__)
        recorded.set_status(Status(StatusCode.ERROR, type(error).__name__))
        raise
    finally:
        context.detach(token)
        recorded.end()


def _checked(traceparent: str | None) -> str | None:
    return traceparent if traceparent and _TRACEPARENT.fullmatch(traceparent) else None


class TelemetryMiddleware:
    """Records a server span per request, under the caller's `traceparent`; a stream's span ends with the stream."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward the request in a span, or with its `traceparent` only."""
        if scope["type"] != "http" or scope["path"] in UNTRACED_PATHS:
            await self._app(scope, receive, send)
            return
        sent = next(
            (value for name, value in scope["headers"] if name == b"traceparent"), b""
        ).decode("latin-1")
        if _active:
            await self._traced(scope, receive, send, sent)
            return
        token = _passed_on.set(_checked(sent))
        try:
            await self._app(scope, receive, send)
        finally:
            _passed_on.reset(token)

    async def _traced(self, scope: Scope, receive: Receive, send: Send, traceparent: str) -> None:
        method: str = scope["method"]
        parent = _propagator.extract({"traceparent": traceparent}, context.Context())
        attributes: dict[str, AttributeValue] = {"http.request.method": method}
        status = 500
        began = time.perf_counter()

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with _recorded(
            method, SpanKind.SERVER, parent, {**attributes, "url.path": scope["path"]}
        ) as recorded:
            try:
                await self._app(scope, receive, watched)
            finally:
                # Known only after routing; the plain path contains ids, which would make a span name per actor.
                route: str = getattr(scope.get("route"), "path", "unmatched")
                attributes |= {"http.route": route, "http.response.status_code": status}
                recorded.update_name(f"{method} {route}")
                recorded.set_attributes(attributes)
                if status >= 500:
                    recorded.set_status(Status(StatusCode.ERROR))
                _duration.record(time.perf_counter() - began, attributes)
