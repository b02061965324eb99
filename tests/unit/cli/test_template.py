"""`dapr.yaml` determines daprd's arguments and the environment of an app."""

from dataclasses import astuple
from itertools import pairwise
from pathlib import Path

import pytest

from services.cli.stack.apps import AppHost, read_template
from services.cli.stack.errors import StackError
from services.cli.stack.ports import PortPlan
from services.contracts.apps import APPS

TEMPLATE = """
version: 1
common:
  resourcesPaths: [components]
  placementHostAddress: 127.0.0.1:6050
  enableAppHealthCheck: true
  logLevel: info
  env: {SHARED: one, KEPT: common}
apps:
  - appID: llm
    appDirPath: apps/llm
    appPort: 7102
    daprHTTPPort: 3512
    daprGRPCPort: 4512
    daprInternalGRPCPort: 5512
    metricsPort: 9512
    command: [python, -m, llm]
    logLevel: debug
    env: {SHARED: two, NUMBER: 7}
"""


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "dapr.yaml"
    path.write_text(TEMPLATE)
    return path


def a_host(path: Path, plan: PortPlan, replica: int = 1) -> AppHost:
    entry = read_template(path).apps[0]
    ports = entry.ports.of_replica(replica, plan)
    return AppHost(entry, ports, "llm", "app-token", "api-token", path.parent)


def flag(arguments: list[str], name: str) -> str:
    return arguments[arguments.index(f"--{name}") + 1]


def test_app_fields_override_common_and_environments_are_merged(template: Path) -> None:
    entry = read_template(template).apps[0]
    assert entry.log_level == "debug"
    assert entry.env == {"SHARED": "two", "KEPT": "common", "NUMBER": "7"}


def test_all_ports_of_a_sidecar_are_shifted_by_the_offset(template: Path) -> None:
    arguments = a_host(template, PortPlan(1000)).arguments(PortPlan(1000), ())
    names = (
        "app-port",
        "dapr-http-port",
        "dapr-grpc-port",
        "dapr-internal-grpc-port",
        "metrics-port",
    )
    assert [flag(arguments, name) for name in names] == ["8102", "4512", "5512", "6512", "10512"]
    assert flag(arguments, "placement-host-address") == "127.0.0.1:7050"
    assert flag(arguments, "scheduler-host-address") == "127.0.0.1:7060"


def test_a_sidecar_listens_on_loopback_only(template: Path) -> None:
    arguments = a_host(template, PortPlan()).arguments(PortPlan(), ())
    listening = [value for name, value in pairwise(arguments) if "listen-address" in name]
    assert listening == ["127.0.0.1"] * 3


def test_paths_are_relative_to_the_template(template: Path) -> None:
    host = a_host(template, PortPlan())
    assert flag(host.arguments(PortPlan(), ()), "resources-path") == str(
        template.parent / "components"
    )
    assert host.app({}).cwd == template.parent / "apps" / "llm"


def test_a_second_host_has_other_ports_and_the_same_app_id(template: Path) -> None:
    first, second = (a_host(template, PortPlan(), number) for number in (1, 2))
    ports = {*first.app({}).ports.values(), *second.app({}).ports.values()}
    assert ports == {7102, 7202}
    assert flag(second.arguments(PortPlan(), ()), "app-id") == "llm"


def test_app_and_sidecar_get_both_tokens_and_the_app_its_ports(template: Path) -> None:
    host = a_host(template, PortPlan(10))
    app = host.app({"YOCASO_ENV": "local"})
    sidecar = host.sidecar(Path("daprd"), PortPlan(10), (), {})
    for env in (app.env, sidecar.env):
        assert (env["APP_API_TOKEN"], env["DAPR_API_TOKEN"]) == ("app-token", "api-token")
    assert (app.env["APP_PORT"], app.env["DAPR_HTTP_PORT"], app.env["DAPR_GRPC_PORT"]) == (
        "7112",
        "3522",
        "4522",
    )
    assert app.env["YOCASO_ENV"] == "local"


def test_an_unknown_field_is_rejected_by_name(template: Path) -> None:
    template.write_text(TEMPLATE.replace("metricsPort", "metricPort"))
    with pytest.raises(StackError, match="metricPort"):
        read_template(template)


def test_the_error_for_an_absent_template_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="--file"):
        read_template(tmp_path / "dapr.yaml")


def test_a_port_in_the_ephemeral_range_is_rejected() -> None:
    with pytest.raises(StackError, match="YOCASO_PORT_OFFSET"):
        PortPlan(30_000).shifted(7102)


def test_the_committed_template_has_the_apps_of_the_manifests_and_unique_ports() -> None:
    apps = read_template(Path(__file__).parents[3] / "dapr.yaml").apps
    ports = [port for app in apps for port in astuple(app.ports)]
    assert {app.app_id for app in apps} == {app.id for app in APPS}
    assert len(ports) == len(set(ports))
    assert all(app.enable_app_health_check for app in apps)
