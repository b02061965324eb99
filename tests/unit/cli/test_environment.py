"""Environment of sidecars."""

from pathlib import Path

import pytest

from services.cli.stack.environment import Environment
from services.cli.stack.ports import PortPlan
from services.cli.stack.state import StateFolder
from tests.requirements import requirement

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@requirement("kit:telemetry")
@pytest.mark.parametrize(
    ("endpoint", "insecure"),
    [("http://127.0.0.1:4318", "true"), ("https://collector.example", "false")],
)
def test_a_sidecar_exports_spans_by_the_protocol_of_the_apps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str, insecure: str
) -> None:
    monkeypatch.setenv(ENDPOINT, endpoint)
    given = Environment(StateFolder(tmp_path), PortPlan(0), {}, with_model=False).for_sidecar()
    assert given[ENDPOINT] == endpoint
    assert given["OTEL_EXPORTER_OTLP_PROTOCOL"] == "http/protobuf"
    assert given["OTEL_EXPORTER_OTLP_INSECURE"] == insecure


def test_without_an_endpoint_a_sidecar_gets_no_variables_of_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ENDPOINT, raising=False)
    given = Environment(StateFolder(tmp_path), PortPlan(0), {}, with_model=False).for_sidecar()
    assert [name for name in given if name.startswith("OTEL_")] == []
