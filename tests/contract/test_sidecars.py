"""The sidecars in `dapr.yaml` fit what the apps serve."""

from pathlib import Path

from services.cli.stack.template import read_template
from services.codegen.dapr import COMPONENTS
from services.contracts.apps import APPS, METHODS
from services.kit.manifest import OBJECTS
from tests.requirements import requirement

TEMPLATE = read_template(Path(__file__).parents[2] / "dapr.yaml")


@requirement("events:many")
def test_an_app_that_serves_streams_is_called_over_http_2() -> None:
    """Over HTTP/1.1 daprd 1.18 opens at most 1,024 connections to its app, one per open stream."""
    streaming = {method.service.app_id for method in METHODS if method.is_stream}
    assert streaming
    assert {app.app_id for app in TEMPLATE.apps if app.app_protocol == "h2c"} == streaming


@requirement("kit:bindings:output")
def test_every_component_that_a_manifest_names_exists_in_every_environment() -> None:
    wanted = {name for app in APPS for name in app.components} - {OBJECTS}
    for environment in ("local", "production"):
        found = {path.stem for path in (COMPONENTS / environment).glob("*.yaml")}
        assert wanted <= found, environment
