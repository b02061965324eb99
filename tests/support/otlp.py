"""An OTLP receiver over HTTP, on the official message definitions."""

import gzip
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

TRACES: Final = "/v1/traces"
SDK_LANGUAGE: Final = "telemetry.sdk.language"
"""A resource attribute of OpenTelemetry's SDKs; daprd sends none."""


@dataclass(frozen=True, slots=True)
class ReceivedSpan:
    """A span as exported; ids are hexadecimal."""

    app: str
    recorder: str
    """The language of the app, or `daprd`: a sidecar exports under its app's name."""
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    """Empty for a root."""
    attributes: Mapping[str, str]


class SpanReceiver:
    """Keeps what it receives, and parses only the exports that are asked for."""

    def __init__(self) -> None:
        self._exports: list[bytes] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def environment(self) -> dict[str, str]:
        """Variables of a stack that exports to it soon."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self._server.server_port}",
            "OTEL_BSP_SCHEDULE_DELAY": "500",
        }

    def trace(self, trace_id: str) -> dict[str, ReceivedSpan]:
        """The spans of a trace by id."""
        named = bytes.fromhex(trace_id)
        spans = (
            span
            for export in list(self._exports)
            if named in export
            for span in _spans_of(ExportTraceServiceRequest.FromString(export))
        )
        return {span.span_id: span for span in spans if span.trace_id == trace_id}

    @property
    def own_exports(self) -> Sequence[bytes]:
        """The messages of the edge and the apps, not of sidecars; a search finds the texts of spans in them."""
        return tuple(each for each in self._exports if SDK_LANGUAGE.encode() in each)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receive = self._exports.append

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                if self.path == TRACES:
                    receive(body)
                reply = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, format: str, *args: object) -> None:
                """Silent: the tests print nothing."""

        return Handler


def _spans_of(export: ExportTraceServiceRequest) -> Iterator[ReceivedSpan]:
    for group in export.resource_spans:
        resource = {each.key: each.value.string_value for each in group.resource.attributes}
        for scope in group.scope_spans:
            yield from (_received(resource, span) for span in scope.spans)


def _received(resource: Mapping[str, str], span: Span) -> ReceivedSpan:
    return ReceivedSpan(
        app=resource.get("service.name", ""),
        recorder=resource.get(SDK_LANGUAGE, "daprd"),
        name=span.name,
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        attributes={each.key: str(each.value) for each in span.attributes},
    )
