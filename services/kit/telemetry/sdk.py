"""OpenTelemetry providers and exporters; imported on demand, as the SDK is slow to load."""

import os
from collections.abc import Sequence

from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from typing_extensions import override


class FileSpanExporter(SpanExporter):
    """Appends each span to a file as a JSON line; processes may share the file."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    @override
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        for span in spans:
            os.write(self._file, span.to_json(indent=None).encode() + b"\n")
        return SpanExportResult.SUCCESS

    @override
    def shutdown(self) -> None:
        os.close(self._file)


def start_sdk(app_id: str, *, to_endpoint: bool, file: str | None) -> None:
    """Set the trace and metric providers of this process."""
    resource = Resource.create({"service.name": app_id, "service.namespace": "yocaso"})
    traces = TracerProvider(resource=resource)
    if to_endpoint:
        traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        reader = PeriodicExportingMetricReader(OTLPMetricExporter())
        metrics.set_meter_provider(MeterProvider([reader], resource))
    if file:
        # Unbatched, so that the spans of a killed process are not lost.
        traces.add_span_processor(SimpleSpanProcessor(FileSpanExporter(file)))
    trace.set_tracer_provider(traces)
