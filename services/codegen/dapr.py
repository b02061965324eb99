"""Generates Dapr's files from the manifests.

`dapr.yaml`: apps and ports. `components/…`: scopes. `components/configuration/apps`: sidecar configuration and API
allow-lists. `components/configuration/access`: which app may call which methods and schedule which activities; these
need mTLS to authenticate the caller, without it Dapr denies every call.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import yaml

from services.codegen.files import HEADER, ROOT
from services.contracts.apps import ACTIVITIES, APPS, WORKFLOWS, app_of, callers_of
from services.kit.manifest import (
    METRICS_PORT_BASE,
    SIDECAR_GRPC_PORT_BASE,
    SIDECAR_HTTP_PORT_BASE,
    SIDECAR_INTERNAL_PORT_BASE,
    App,
    Language,
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
TRUST_DOMAIN: Final = "public"
"""Sentry's default trust domain, locally and on Kubernetes."""
NAMESPACE: Final = "default"

INVOKE: Final[tuple[Api, ...]] = (("http", "invoke", "v1"),)
ACTORS: Final[tuple[Api, ...]] = (
    ("grpc", "actors", "v1"),
    ("grpc", "state", "v1"),
    ("grpc", "metadata", "v1"),
)
"""For apps with actors; metadata shows whether the sidecar has registered the actor types."""
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
        written[path] = _set_scopes(path.read_text())
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
    return (*http, *(ACTORS if app.actors else NO_GRPC))


def access_policy(app: App) -> Resource:
    """Which apps may call which methods of an app; other calls are denied."""
    callers = {caller.id: calls for caller in APPS if (calls := _allowed_methods(app, caller))}
    control = {
        "defaultAction": "deny",
        "trustDomain": TRUST_DOMAIN,
        "policies": [
            {
                "appId": caller,
                "defaultAction": "deny",
                "trustDomain": TRUST_DOMAIN,
                "namespace": NAMESPACE,
                "operations": [
                    {"name": path, "httpVerb": list(verbs), "action": "allow"}
                    for path, verbs in sorted(calls.items())
                ],
            }
            for caller, calls in sorted(callers.items())
        ],
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


def _set_scopes(component: str) -> str:
    name = yaml.safe_load(component)["metadata"]["name"]
    apps = ", ".join(app.id for app in APPS if name in app.components)
    return re.sub(r"(?m)^scopes: .*$", f"scopes: [{apps}]", component)


def _template() -> str:
    head, _, _ = TEMPLATE.read_text().partition("\napps:")
    apps = "".join(_entry(app) for app in sorted(APPS, key=lambda app: app.is_edge))
    return f"{head}\napps: # written by `poe emit` from the manifests in services/contracts\n{apps}"


def _entry(app: App) -> str:
    is_python = app.language is Language.PYTHON
    serve = ("python", "-m", "services.kit.http.serve", f"{app.module}.app")
    lines = [
        f"configFilePath: components/configuration/apps/{app.id}.yaml",
        f"appDirPath: {'.' if is_python else app.folder}",
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
