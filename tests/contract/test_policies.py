"""The sidecars' policies follow from the contracts and deny by default."""

from typing import Any

import pytest

from services.cli.stack.apps import read_template
from services.codegen.dapr import ORCHESTRATORS, access_policy, configuration, workflow_policies
from services.contracts.apps import ACTIVITIES, APPS, EDGE, METHODS, callers_of
from services.kit.manifest import App
from tests.contract.sources import ROOT
from tests.requirements import requirement

Call = tuple[str, str, str, str]
"""Caller, called app, path, verb."""


def _allowed() -> set[Call]:
    return {
        (policy["appId"], app.id, operation["name"], verb)
        for app in APPS
        for policy in _control(app)["policies"]
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
        name: f"components/configuration/apps/{name}.yaml" for name in apps
    }


@requirement("access:policies")
def test_calls_are_denied_by_default() -> None:
    for app in APPS:
        control = _control(app)
        assert control["defaultAction"] == "deny"
        for policy in control["policies"]:
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
        assert not names & {"secrets", "shutdown", "publish", "bindings", "jobs"}
        assert "actors" in names or "metadata" not in names


@requirement("access:policies")
def test_no_app_may_read_the_secret_store() -> None:
    for app in APPS:
        scopes = configuration(app)["spec"]["secrets"]["scopes"]
        assert scopes == [{"storeName": "secrets", "defaultAccess": "deny"}]
