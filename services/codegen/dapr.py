"""Generates Dapr's files from the manifests.

`dapr.yaml`: apps and ports. `components/…`: scopes. `components/configuration/apps`: sidecar configuration and API
allow-lists. `components/configuration/access`: which app may call which methods and schedule which activities; these
need mTLS to authenticate the caller, without it Dapr denies every call. `yocaso up` and the chart add the operator's
trusted back ends to them.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from services.codegen.files import HEADER, ROOT
from services.contracts.apps import ACTIVITIES, APPS, WORKFLOWS, app_of, callers_of
from services.kit.bindings import OutputBinding
from services.kit.dapr.access_policy import TRUST_DOMAIN, policy_of_caller
from services.kit.manifest import (
    METRICS_PORT_BASE,
    SIDECAR_GRPC_PORT_BASE,
    SIDECAR_HTTP_PORT_BASE,
    SIDECAR_INTERNAL_PORT_BASE,
    App,
)

Resource = dict[str, Any]
Api = tuple[str, str, str]
"""Protocol, name and version of one of Dapr's APIs."""

TEMPLATE: Final = ROOT / "dapr.yaml"
COMPONENTS: Final = ROOT / "components"
CONFIGURATION: Final = COMPONENTS / "configuration"
SHARED: Final = COMPONENTS / "common" / "config.yaml"
HEALTH_PATH: Final = "/healthz"
HISTORY_RETENTION: Final = "24h"
"""How long the history of an ended workflow is kept."""
INVOKE: Final[tuple[Api, ...]] = (("http", "invoke", "v1"),)
ACTORS: Final[tuple[Api, ...]] = (
    ("grpc", "actors", "v1"),
    ("grpc", "state", "v1"),
)
METADATA: Final[tuple[Api, ...]] = (("grpc", "metadata", "v1"),)
"""For apps with actors, workflows or activities: it shows whether the sidecar has registered their actor types."""
PUBLISH: Final[tuple[Api, ...]] = (("grpc", "publish", "v1"),)
JOBS: Final[tuple[Api, ...]] = (("grpc", "jobs", "v1"),)
BINDINGS: Final[tuple[Api, ...]] = (("grpc", "bindings", "v1"),)
NO_HTTP: Final[tuple[Api, ...]] = (("http", "healthz", "v1"),)
NO_GRPC: Final[tuple[Api, ...]] = (("grpc", "unlock", "v1alpha1"),)
"""Placeholder, harmless without a lock store: an empty list for a protocol would allow all its APIs."""

ORCHESTRATORS: Final = frozenset(workflow.app_id for workflow in WORKFLOWS)
"""App-ids that host workflows."""


def files() -> dict[Path, str]:
    """The generated files and their content."""
    access = CONFIGURATION / "access"
    written = {access / "workflows.policies.yaml": _to_yaml(*workflow_policies())}
    for app in APPS:
        written[CONFIGURATION / "apps" / f"{app.id}.yaml"] = _to_yaml(configuration(app))
        written[access / f"{app.id}.yaml"] = _to_yaml(access_policy(app))
    for path in component_files():
        written[path] = set_scopes(path.read_text())
    written[TEMPLATE] = _template()
    return written


def existing_files() -> Iterable[Path]:
    """Files present in the folders that hold only generated files."""
    return CONFIGURATION.rglob("*.yaml")


def component_files() -> list[Path]:
    """Component files of every environment."""
    found = [path for name in ("local", "production") for path in (COMPONENTS / name).glob("*")]
    return sorted(found)


def configuration(app: App) -> Resource:
    """Settings that all sidecars share, and the APIs that this app may call."""
    shared: Resource = yaml.safe_load(SHARED.read_text())
    allowed = [
        {"name": name, "version": version, "protocol": protocol}
        for protocol, name, version in _apis(app)
    ]
    spec: Resource = {**shared["spec"], "api": {"allowed": allowed}}
    if app.id in ORCHESTRATORS:
        spec["workflow"] = {"stateRetentionPolicy": {"anyTerminal": HISTORY_RETENTION}}
    return _resource("Configuration", app.id, spec)


def _apis(app: App) -> tuple[Api, ...]:
    """The APIs an app may call. Dapr always allows that of the workflow SDK."""
    http = INVOKE if app.calls or app.is_edge else NO_HTTP
    calls_bindings = any(isinstance(binding, OutputBinding) for binding in app.bindings)
    grpc = (
        *(ACTORS if app.actors else ()),
        *(METADATA if app.actors or app.activities or app.id in ORCHESTRATORS else ()),
        *(PUBLISH if app.publishes else ()),
        *(JOBS if app.jobs else ()),
        *(BINDINGS if calls_bindings else ()),
    )
    return (*http, *(grpc or NO_GRPC))


def access_policy(app: App) -> Resource:
    """Which apps may call which methods of an app; other calls are denied.

    Any app may call the edge, which authenticates users by itself.
    """
    callers = {caller.id: calls for caller in APPS if (calls := _allowed_methods(app, caller))}
    control = {
        "defaultAction": "allow" if app.is_edge else "deny",
        "trustDomain": TRUST_DOMAIN,
        "policies": [policy_of_caller(caller, calls) for caller, calls in sorted(callers.items())],
    }
    return _resource("Configuration", app.id, {"accessControl": control})


def workflow_policies() -> list[Resource]:
    """Only apps that host workflows may schedule an app's activities."""
    hosts = sorted({activity.app_id for activity in ACTIVITIES})
    return [
        {
            **_resource("WorkflowAccessPolicy", f"activities-of-{host}", {"rules": [_rule(host)]}),
            "scopes": [host],
        }
        for host in hosts
    ]


def _allowed_methods(app: App, caller: App) -> dict[str, tuple[str, ...]]:
    calls = {method.path: method.verbs for method in app.methods if caller.id in callers_of(method)}
    if caller.is_edge:
        calls |= dict.fromkeys(app.public_paths, ("GET",))
        if app.streams:
            calls[HEALTH_PATH] = ("GET",)  # the edge's keep-alive of connections with streams
    return calls


def _rule(host: str) -> Resource:
    names = sorted(activity.name for activity in app_of(host).activities)
    return {
        "callers": [{"appID": name} for name in sorted(ORCHESTRATORS)],
        "activities": [{"name": name} for name in names],
    }


def set_scopes(component: str, apps: Sequence[App] = APPS) -> str:
    """A component with the scopes that follow from the manifests of `apps`."""
    name = yaml.safe_load(component)["metadata"]["name"]
    apps = [app for app in apps if name in app.components]
    for field, topics in (
        ("publishing", {app.id: app.publishes for app in apps}),
        ("subscription", {app.id: app.subscribes for app in apps}),
    ):
        scopes = ";".join(
            f"{app_id}={','.join(topic.name for topic in found)}"
            for app_id, found in topics.items()
        )
        component = re.sub(rf"(- name: {field}Scopes\n +value: ).*", rf'\g<1>"{scopes}"', component)
    names = ", ".join(app.id for app in apps)
    return re.sub(r"(?m)^scopes: .*$", f"scopes: [{names}]", component)


def _template() -> str:
    head, _, _ = TEMPLATE.read_text().partition("\napps:")
    apps = "".join(_entry(app) for app in sorted(APPS, key=lambda app: app.is_edge))
    return f"{head}\napps: # written by `poe emit` from the manifests in services/contracts\n{apps}"


def _entry(app: App) -> str:
    serve = ("python", "-m", "services.kit.http.serve", f"{app.module}.app")
    lines = [
        f"configFilePath: components/configuration/apps/{app.id}.yaml",
        "appDirPath: .",  # `dapr run` takes the paths of an app, and of its sidecar, from here
        f"appPort: {app.port}",
        f"daprHTTPPort: {SIDECAR_HTTP_PORT_BASE + app.number}",
        f"daprGRPCPort: {SIDECAR_GRPC_PORT_BASE + app.number}",
        f"daprInternalGRPCPort: {SIDECAR_INTERNAL_PORT_BASE + app.number}",
        f"metricsPort: {METRICS_PORT_BASE + app.number}",
        f"command: [{', '.join(app.command or serve)}]",
    ]
    if app.streams:
        lines.insert(0, "appProtocol: h2c # HTTP/1.1 would limit it to 1,024 open streams")
    if app.is_edge:
        lines.insert(-1, "readBufferSize: 64Ki # fits large tokens and query strings")
    return f"  - appID: {app.id}\n" + "".join(f"    {line}\n" for line in lines)


def _resource(kind: str, name: str, spec: Resource) -> Resource:
    return {
        "apiVersion": "dapr.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    }


def _to_yaml(*resources: Resource) -> str:
    return HEADER + "---\n".join(yaml.safe_dump(one, sort_keys=False) for one in resources)
