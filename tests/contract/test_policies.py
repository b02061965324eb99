"""The sidecars' policies follow from the contracts and deny by default."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from services.cli.stack.errors import StackError
from services.cli.stack.policies import render_policy, trusted_apps
from services.cli.stack.template import read_template
from services.codegen.dapr import (
    CONFIGURATION,
    ORCHESTRATORS,
    access_policy,
    configuration,
    workflow_policies,
)
from services.contracts.apps import ACTIVITIES, APPS, EDGE, METHODS, app_of, callers_of
from services.kit.dapr.access_policy import policies_of_trusted
from services.kit.manifest import App
from services.kit.settings import PlatformSettings, load_settings
from services.platform import Platform, platform_app
from tests.contract.sources import ROOT
from tests.requirements import requirement

Call = tuple[str, str, str, str]
"""Caller, called app, path, verb."""


TRUSTED = ("backend", "web")


def _allowed() -> set[Call]:
    return {call for app in APPS for call in _calls(app, _control(app)["policies"])}


def _calls(app: App, policies: list[dict[str, Any]]) -> set[Call]:
    return {
        (policy["appId"], app.id, operation["name"], verb)
        for policy in policies
        for operation in policy["operations"]
        for verb in operation["httpVerb"]
    }


def _control(app: App) -> dict[str, Any]:
    return access_policy(app)["spec"]["accessControl"]


@requirement("access:policies")
def test_every_app_of_the_template_has_its_own_configuration() -> None:
    apps = {app.app_id: app for app in read_template(ROOT / "dapr.yaml").apps}
    assert set(apps) == {app.id for app in APPS}
    assert {name: app.config_file_path for name, app in apps.items()} == {
        name: str(ROOT / "components" / "configuration" / "apps" / f"{name}.yaml") for name in apps
    }


@requirement("access:policies")
def test_calls_are_denied_by_default() -> None:
    for app in APPS:
        control = _control(app)
        # Like its port, the edge's sidecar is open to every app: the edge authenticates users by their credential.
        assert control["defaultAction"] == ("allow" if app is EDGE else "deny")
        for policy in (*control["policies"], *policies_of_trusted(app, TRUSTED)):
            assert policy["defaultAction"] == "deny"
            assert {operation["action"] for operation in policy["operations"]} == {"allow"}
            assert not [one for one in policy["operations"] if "*" in str(one)]


@requirement("access:policies")
def test_the_allowed_calls_are_those_of_the_contract() -> None:
    wanted: set[Call] = {
        (EDGE.id, app.id, path, "GET") for app in APPS for path in app.public_paths
    }
    wanted |= {(EDGE.id, app.id, "/healthz", "GET") for app in APPS if app.streams}
    for method in METHODS:
        for caller in callers_of(method):
            verbs = ("POST", "GET") if method.is_stream else ("POST",)
            wanted |= {(caller, method.service.app_id, method.path, verb) for verb in verbs}
    assert _allowed() == wanted


@requirement("access:policies")
def test_the_edge_may_call_no_internal_method_and_no_app_the_edge() -> None:
    allowed = _allowed()
    internal = {
        method.path for method in METHODS if method.internal and EDGE.id not in callers_of(method)
    }
    assert internal
    assert not [call for call in allowed if call[0] == EDGE.id and call[2] in internal]
    assert not [call for call in allowed if call[1] == EDGE.id]


@requirement("access:trusted-apps")
def test_a_trusted_back_end_may_call_the_methods_with_a_scope_and_no_other() -> None:
    allowed = {call for app in APPS for call in _calls(app, policies_of_trusted(app, TRUSTED))}
    wanted = {
        (back_end, method.service.app_id, method.path, verb)
        for back_end in TRUSTED
        for method in METHODS
        if method.scope
        for verb in (("POST", "GET") if method.is_stream else ("POST",))
    }
    assert allowed == wanted
    named = {method for method in METHODS if TRUSTED[0] in callers_of(method, TRUSTED)}
    assert named == {method for method in METHODS if method.scope}
    assert {policy["appId"] for app in APPS for policy in policies_of_trusted(app, ())} == set()


@requirement("access:trusted-apps")
def test_only_the_edge_and_the_apps_of_the_contract_call_without_being_trusted() -> None:
    for method in METHODS:
        listed = {app.id for app in APPS if method in app.calls}
        assert set(callers_of(method)) == (listed if method.internal else {EDGE.id, *listed})


@requirement("access:trusted-apps")
@pytest.mark.parametrize("app_id", [app.id for app in APPS])
def test_an_app_of_the_platform_cannot_be_a_trusted_back_end(
    app_id: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StackError, match=f"YOCASO_TRUSTED_APPS: {app_id}: an app of the platform"):
        trusted_apps({"YOCASO_TRUSTED_APPS": f"backend,{app_id}"})
    monkeypatch.setenv("YOCASO_TRUSTED_APPS", f"backend,{app_id}")
    settings = load_settings(PlatformSettings)
    with pytest.raises(SystemExit):
        platform_app(app_of("llm"), settings, routers=[], compose=_nothing)
    assert capsys.readouterr().err.startswith(f"YOCASO_TRUSTED_APPS: {app_id}: ")


async def _nothing(platform: Platform) -> None:
    """Compose no dependencies."""


@requirement("access:trusted-apps")
def test_the_local_policies_are_the_committed_ones_and_those_of_trusted_back_ends(
    tmp_path: Path,
) -> None:
    for app in APPS:
        committed = CONFIGURATION / "access" / f"{app.id}.yaml"
        rendered = render_policy(committed, app.id, TRUSTED, tmp_path / "policy.yaml")
        wanted = yaml.safe_load(committed.read_text())
        wanted["spec"]["accessControl"]["policies"] += policies_of_trusted(app, TRUSTED)
        assert yaml.safe_load(rendered.read_text()) == wanted


@requirement("access:policies")
def test_only_workflows_may_schedule_activities() -> None:
    rules = {policy["scopes"][0]: policy["spec"]["rules"] for policy in workflow_policies()}
    assert set(rules) == {activity.app_id for activity in ACTIVITIES}
    for host, (rule,) in rules.items():
        assert rule["callers"] == [{"appID": name} for name in ORCHESTRATORS]
        names = {activity.name for activity in ACTIVITIES if activity.app_id == host}
        assert {one["name"] for one in rule["activities"]} == names


@requirement("access:policies")
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_no_sidecar_allows_all_dapr_apis(protocol: str) -> None:
    for app in APPS:
        allowed = configuration(app)["spec"]["api"]["allowed"]
        names = {one["name"] for one in allowed if one["protocol"] == protocol}
        assert names, "an empty list would allow everything"
        assert not names & {"secrets", "shutdown"}
        assert "bindings" not in names or app.bindings
        assert "jobs" not in names or (app.jobs and protocol == "grpc")
        assert "publish" not in names or app.publishes
        hosts = app.actors or app.activities or app.id in ORCHESTRATORS
        assert protocol == "http" or hosts or "metadata" not in names


@requirement("access:policies")
def test_no_app_may_read_the_secret_store() -> None:
    for app in APPS:
        scopes = configuration(app)["spec"]["secrets"]["scopes"]
        assert scopes == [{"storeName": "secrets", "defaultAccess": "deny"}]
