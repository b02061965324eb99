"""The chart configures Dapr like the secure profile, for the release's namespace and trust domain."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from services.codegen.dapr import CONFIGURATION
from services.codegen.files import ROOT
from services.contracts.apps import APPS, EDGE, app_of
from services.kit.dapr.access_policy import TRUST_DOMAIN, policies_of_trusted
from tests.requirements import requirement
from tests.support.chart import CHART, Helm, a_cluster

PRODUCTION = ROOT / "components" / "production"
NAMESPACE = "tenant-x"
DOMAIN = "trust.y"
Resources = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm(tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="module")
def resources(helm: Helm) -> Resources:
    rendered = helm.template(NAMESPACE, trustDomain=DOMAIN)
    found = {(one["kind"], one["metadata"]["name"]): one for one in rendered}
    assert len(found) == len(rendered)
    return found


def _configurations(resources: Resources) -> dict[str, dict[str, Any]]:
    return {name: one["spec"] for (kind, name), one in resources.items() if kind == "Configuration"}


def _resources(file: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(file.read_text()))


@requirement("access:chart")
def test_helm_lint_passes(helm: Helm) -> None:
    linted = helm.run("lint", "--strict", str(CHART))
    assert linted.returncode == 0, linted.stdout + linted.stderr


@requirement("access:chart")
def test_every_resource_matches_daprs_crds(helm: Helm, resources: Resources) -> None:
    validators = helm.validators()
    for resource in resources.values():
        errors = validators[resource["apiVersion"], resource["kind"]].iter_errors(resource)
        assert [f"{error.json_path}: {error.message}" for error in errors] == []


@requirement("access:chart")
def test_an_unknown_field_is_detected(helm: Helm, resources: Resources) -> None:
    validator = helm.validators()["dapr.io/v1alpha1", "Configuration"]
    resource = resources["Configuration", "llm"]
    control = {**resource["spec"]["accessControl"], "defaultActoin": "deny"}
    spoiled = {**resource, "spec": {**resource["spec"], "accessControl": control}}
    assert "defaultActoin" in "".join(error.message for error in validator.iter_errors(spoiled))


@requirement("access:chart")
def test_every_policy_has_the_release_s_namespace_and_trust_domain(resources: Resources) -> None:
    assert {one["metadata"]["namespace"] for one in resources.values()} == {NAMESPACE}
    for spec in _configurations(resources).values():
        control = spec["accessControl"]
        assert {one["trustDomain"] for one in (control, *control["policies"])} == {DOMAIN}
        assert {one["namespace"] for one in control["policies"]} <= {NAMESPACE}


@requirement("access:chart")
def test_an_apps_configuration_equals_that_of_the_secure_profile(resources: Resources) -> None:
    found = _configurations(resources)
    assert set(found) == {app.id for app in APPS}
    for app, spec in found.items():
        files = (CONFIGURATION / folder / f"{app}.yaml" for folder in ("apps", "access"))
        (apis,), (policies,) = map(_resources, files)
        local: dict[str, Any] = {**apis["spec"], **policies["spec"]}
        del local["nameResolution"]
        local["secrets"]["scopes"].append({"storeName": "kubernetes", "defaultAccess": "deny"})
        control = local["accessControl"]
        control["trustDomain"] = DOMAIN
        for policy in control["policies"]:
            policy |= {"trustDomain": DOMAIN, "namespace": NAMESPACE}
        assert spec == local


@requirement("access:chart")
def test_nothing_is_allowed_by_default_except_to_call_the_edge(resources: Resources) -> None:
    for app, spec in _configurations(resources).items():
        control = spec["accessControl"]
        assert control["defaultAction"] == ("allow" if app == EDGE.id else "deny")
        assert {one["defaultAction"] for one in control["policies"]} <= {"deny"}
        assert {one["protocol"] for one in spec["api"]["allowed"]} == {"http", "grpc"}
        denied = {(one["storeName"], one["defaultAccess"]) for one in spec["secrets"]["scopes"]}
        assert denied == {("secrets", "deny"), ("kubernetes", "deny")}


@requirement("access:trusted-apps")
def test_trusted_back_ends_get_the_policies_of_the_secure_profile(
    helm: Helm, resources: Resources
) -> None:
    rendered = helm.template(NAMESPACE, trustDomain=DOMAIN, trustedApps="{web,backend}")
    assert len(rendered) == len(resources)
    before = _configurations(resources)
    for resource in rendered:
        if resource["kind"] != "Configuration":
            continue
        app = app_of(resource["metadata"]["name"])
        wanted = [
            policy | {"trustDomain": DOMAIN, "namespace": NAMESPACE}
            for policy in policies_of_trusted(app, ("web", "backend"))
        ]
        wanted += before[app.id]["accessControl"]["policies"]
        found = resource["spec"]["accessControl"]["policies"]
        assert sorted(found, key=_app_id) == sorted(wanted, key=_app_id)
        errors = helm.validators()[resource["apiVersion"], resource["kind"]].iter_errors(resource)
        assert [f"{error.json_path}: {error.message}" for error in errors] == []


def _app_id(policy: dict[str, Any]) -> str:
    return policy["appId"]


@requirement("access:chart")
def test_activities_and_components_are_those_of_the_repository(resources: Resources) -> None:
    production = [one for file in PRODUCTION.glob("*.yaml") for one in _resources(file)]
    policies = _resources(CONFIGURATION / "access" / "workflows.policies.yaml")
    wanted = [*policies, *production]
    for resource in wanted:
        resource["metadata"]["namespace"] = NAMESPACE
        found = resources[resource["kind"], resource["metadata"]["name"]]
        assert found == resource
        assert found["scopes"]
        assert set(found["scopes"]) <= {app.id for app in APPS}
    assert len(resources) == len(wanted) + len(APPS)


@requirement("access:chart")
def test_the_default_trust_domain_is_that_of_the_repository(helm: Helm) -> None:
    specs = [one["spec"] for one in helm.template("default") if one["kind"] == "Configuration"]
    assert {spec["accessControl"]["trustDomain"] for spec in specs} == {TRUST_DOMAIN}


@requirement("access:chart")
@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("trustDomain=Not a domain", "trustDomain"),
        ("trustDomain=", "trustDomain"),
        ("trustDomain=null", "trustDomain"),
        ("daprNamespace=-x", "daprNamespace"),
        ("trustDomian=x", "trustDomian"),
        ("trustedApps=backend", "trustedApps"),
        ("trustedApps=null", "trustedApps"),
        ("trustedApps={Backend}", "trustedApps"),
        ("trustedApps={backend,backend}", "trustedApps"),
        ("trustedApps={backend,llm}", "trustedApps: llm is an app of the platform"),
        ("trustedApps={edge}", "trustedApps: edge is an app of the platform"),
    ],
)
def test_an_invalid_value_is_refused_by_name(helm: Helm, value: str, name: str) -> None:
    refused = helm.run("template", "one", str(CHART), f"--set={value}")
    assert refused.returncode != 0
    assert name in refused.stderr


@requirement("access:chart-mtls")
@pytest.mark.parametrize("namespace", ["dapr-system", "elsewhere"])
def test_a_control_plane_without_mtls_is_refused(helm: Helm, namespace: str) -> None:
    answer = _installed(helm, namespace, {"enabled": False})
    assert answer.returncode != 0
    assert f'mTLS of the Dapr control plane in namespace "{namespace}" is off' in answer.stderr


@requirement("access:chart-mtls")
@pytest.mark.parametrize("mtls", [{"enabled": True}, {}, None])
def test_a_control_plane_with_mtls_or_no_control_plane_is_accepted(
    helm: Helm, mtls: dict[str, Any] | None
) -> None:
    answer = _installed(helm, "dapr-system", mtls)
    assert answer.returncode == 0, answer.stderr
    assert "defaultAction: deny" in answer.stdout


def _installed(helm: Helm, namespace: str, mtls: dict[str, Any] | None) -> Any:
    with a_cluster(namespace, mtls) as address:
        release = ("template", "one", str(CHART), f"--set=daprNamespace={namespace}")
        return helm.run(*release, "--dry-run=server", f"--kube-apiserver={address}")
