"""`dapr.yaml` determines daprd's arguments and the environment of an app."""

import re
from itertools import pairwise
from pathlib import Path

import pytest

from services.cli.stack.apps import AppHost
from services.cli.stack.errors import StackError
from services.cli.stack.ports import PortPlan
from services.cli.stack.template import read_template
from tests.requirements import requirement
from tests.support.run_templates import FAULTS, TEMPLATE, Fault, write_template


@pytest.fixture
def template(tmp_path: Path) -> Path:
    return write_template(tmp_path)


def a_host(path: Path, plan: PortPlan, replica: int = 1) -> AppHost:
    entry = read_template(path).apps[0]
    ports = entry.ports.of_replica(replica, plan)
    return AppHost(entry, ports, "llm", "app-token", "api-token")


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


@requirement("stack:run-template")
def test_common_paths_are_relative_to_the_file_and_those_of_an_app_to_its_folder(
    template: Path,
) -> None:
    host, folder = a_host(template, PortPlan()), template.parent / "apps" / "llm"
    assert host.entry.resources_paths == [str(template.parent / "components")]
    assert host.entry.config_file_path == str(folder / "config.yaml")
    sidecar = host.sidecar(Path("daprd"), PortPlan(), (), {})
    assert host.app({}).cwd == sidecar.cwd == folder


@requirement("stack:run-template")
def test_what_an_app_folder_holds_in_dot_dapr_comes_before_common(template: Path) -> None:
    own = template.parent / "apps" / "llm" / ".dapr"
    (own / "resources").mkdir(parents=True)
    (own / "config.yaml").write_text("kind: Configuration\n")
    text = TEMPLATE.replace("    configFilePath: config.yaml\n", "")
    entry = read_template(write_template(template.parent, text)).apps[0]
    assert entry.resources_paths == [str(own / "resources")]
    assert entry.config_file_path == str(own / "config.yaml")


@requirement("stack:run-template")
def test_an_empty_field_of_an_app_counts_as_absent_except_an_address(template: Path) -> None:
    text = TEMPLATE.replace("logLevel: debug", 'enableAppHealthCheck: false\n    logLevel: ""')
    text += '    placementHostAddress: ""\n'
    entry = read_template(write_template(template.parent, text)).apps[0]
    assert entry.enable_app_health_check is True
    assert entry.log_level == "info"
    arguments = AppHost(entry, entry.ports, "llm", "", "").arguments(PortPlan(), ())
    assert "--placement-host-address" not in arguments
    assert "--scheduler-host-address" in arguments


@requirement("stack:run-template")
def test_an_app_without_an_id_is_named_after_its_folder(template: Path) -> None:
    text = TEMPLATE.replace("appID: llm", "containerImage: none").replace("apps/llm", "apps/one")
    (template.parent / "apps" / "llm").rename(template.parent / "apps" / "one")
    assert read_template(write_template(template.parent, text)).apps[0].app_id == "one"


@requirement("stack:run-template")
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_the_error_of_a_faulty_template_names_the_field(fault: Fault, tmp_path: Path) -> None:
    path = write_template(tmp_path, TEMPLATE.replace(fault.old, fault.new))
    with pytest.raises(StackError, match=re.escape(fault.field)):
        read_template(path)


@requirement("stack:run-template")
@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("runtimePath: .", "runtimePath is not supported"),
        ("unixDomainSocket: /tmp", "unixDomainSocket is not supported"),
        ("logLevel: true", "apps.0.logLevel"),
        ("placementHostAddress: localhost", "apps.0.placementHostAddress"),
    ],
)
def test_what_dapr_run_accepts_and_yocaso_does_not_is_refused_by_name(
    line: str, field: str, tmp_path: Path
) -> None:
    path = write_template(tmp_path, TEMPLATE.replace("logLevel: debug", line))
    with pytest.raises(StackError, match=re.escape(field)):
        read_template(path)


def test_an_app_id_is_used_once(tmp_path: Path) -> None:
    head, _, app = TEMPLATE.partition("apps:\n")
    with pytest.raises(StackError, match=re.escape("apps.1.appID")):
        read_template(write_template(tmp_path, f"{head}apps:\n{app}{app}"))


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
