"""An OTLP receiver over HTTP, on the official message definitions."""

import gzip
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

TRACES: Final = "/v1/traces"


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
    """Keeps the spans that it receives."""

    def __init__(self) -> None:
        self._spans: list[ReceivedSpan] = []
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
        """Variables of a stack that exports to it at once."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self._server.server_port}",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }

    def trace(self, trace_id: str) -> dict[str, ReceivedSpan]:
        """The spans of a trace by id."""
        return {span.span_id: span for span in list(self._spans) if span.trace_id == trace_id}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receive = self._receive

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                if self.path == TRACES:
                    receive(ExportTraceServiceRequest.FromString(body))
                reply = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, format: str, *args: object) -> None:
                """Silent: the tests print nothing."""

        return Handler

    def _receive(self, export: ExportTraceServiceRequest) -> None:
        for group in export.resource_spans:
            resource = {each.key: each.value.string_value for each in group.resource.attributes}
            for scope in group.scope_spans:
                self._spans += [_received(resource, span) for span in scope.spans]


def _received(resource: Mapping[str, str], span: Span) -> ReceivedSpan:
    return ReceivedSpan(
        app=resource.get("service.name", ""),
        recorder=resource.get("telemetry.sdk.language", "daprd"),
        name=span.name,
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        attributes={each.key: str(each.value) for each in span.attributes},
    )
