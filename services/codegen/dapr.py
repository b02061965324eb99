"""What Dapr is told of the apps, as it follows from their manifests.

`dapr.yaml`: each app with its ports. `components/…`: which apps have a component. `components/configuration/apps`: what
a sidecar is configured with, and which of Dapr's APIs its app may use. `components/configuration/access`: which app may
call which methods and schedule which activities; the caller is proven by mTLS, and without it Dapr would refuse every
call.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import yaml

from services.codegen.files import HEADER, ROOT
from services.contracts.apps import ACTIVITIES, APPS, WORKFLOWS, app_of, callers_of
from services.kit.manifest import (
    METRICS_PORTS,
    SIDECAR_GRPC_PORTS,
    SIDECAR_HTTP_PORTS,
    SIDECAR_INTERNAL_PORTS,
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
HISTORY_KEPT: Final = "24h"
"""How long after its end the history of a workflow can be looked at."""
TRUST_DOMAIN: Final = "public"
"""What sentry puts into the certificate of a workload that names no other, here and on Kubernetes."""
NAMESPACE: Final = "default"

INVOKE: Final[tuple[Api, ...]] = (("http", "invoke", "v1"),)
ACTORS: Final[tuple[Api, ...]] = (
    ("grpc", "actors", "v1"),
    ("grpc", "state", "v1"),
    ("grpc", "metadata", "v1"),
)
"""What an app with actors needs; by the metadata it sees whether the sidecar has them."""
NO_HTTP: Final[tuple[Api, ...]] = (("http", "healthz", "v1"),)
NO_GRPC: Final[tuple[Api, ...]] = (("grpc", "unlock", "v1alpha1"),)
"""Does nothing where no lock store is: an empty list of one protocol would allow all of it."""

ORCHESTRATORS: Final = frozenset(workflow.app_id for workflow in WORKFLOWS)
"""The apps that host workflows."""


def files() -> dict[Path, str]:
    """Every file with its content."""
    access = CONFIGURATION / "access"
    written = {access / "workflows.policies.yaml": _text(*workflow_policies())}
    for app in APPS:
        written[CONFIGURATION / "apps" / f"{app.id}.yaml"] = _text(configuration(app))
        written[access / f"{app.id}.yaml"] = _text(access_policy(app))
    for path in component_files():
        written[path] = _with_scopes(path.read_text())
    written[TEMPLATE] = _template()
    return written


def owned() -> Iterable[Path]:
    """Every file in the folders that have emitted files only."""
    return CONFIGURATION.rglob("*.yaml")


def component_files() -> list[Path]:
    """The components of every environment."""
    found = [path for name in ("local", "production") for path in (COMPONENTS / name).glob("*")]
    return sorted(found)


# --- what a sidecar is configured with ---


def configuration(app: App) -> Resource:
    """What all sidecars share, and the APIs that this one's app may use."""
    shared: Resource = yaml.safe_load(SHARED.read_text())
    allowed = [
        {"name": name, "version": version, "protocol": protocol}
        for protocol, name, version in _apis(app)
    ]
    spec: Resource = {**shared["spec"], "api": {"allowed": allowed}}
    if app.id in ORCHESTRATORS:
        spec["workflow"] = {"stateRetentionPolicy": {"anyTerminal": HISTORY_KEPT}}
    return _resource("Configuration", app.id, spec)


def _apis(app: App) -> tuple[Api, ...]:
    """The workflow SDK's own protocol is not among them: it cannot be taken away."""
    http = INVOKE if app.calls or app.faces_clients else NO_HTTP
    return (*http, *(ACTORS if app.actors else NO_GRPC))


# --- who may call ---


def access_policy(app: App) -> Resource:
    """Who may call which methods of an app; nobody may call anything else."""
    callers = {caller.id: calls for caller in APPS if (calls := _calls(app, caller))}
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
    """Who may schedule an app's activities: the apps that host workflows, and nobody else."""
    hosts = sorted({activity.app_id for activity in ACTIVITIES})
    return [
        {
            **_resource("WorkflowAccessPolicy", f"activities-of-{host}", {"rules": [_rule(host)]}),
            "scopes": [host],
        }
        for host in hosts
    ]


def _calls(app: App, caller: App) -> dict[str, tuple[str, ...]]:
    calls = {method.path: method.verbs for method in app.methods if caller.id in callers_of(method)}
    if caller.faces_clients:
        calls |= dict.fromkeys(app.public_paths, ("GET",))
        if app.streams:
            calls[HEALTH_PATH] = ("GET",)  # what the edge says to keep streams connected
    return calls


def _rule(host: str) -> Resource:
    names = sorted(activity.name for activity in app_of(host).activities)
    return {
        "callers": [{"appID": name} for name in sorted(ORCHESTRATORS)],
        "activities": [{"name": name} for name in names],
    }


# --- components and the template of `dapr run` ---


def _with_scopes(component: str) -> str:
    name = yaml.safe_load(component)["metadata"]["name"]
    apps = ", ".join(app.id for app in APPS if name in app.components)
    return re.sub(r"(?m)^scopes: .*$", f"scopes: [{apps}]", component)


def _template() -> str:
    head, _, _ = TEMPLATE.read_text().partition("\napps:")
    apps = "".join(_entry(app) for app in sorted(APPS, key=lambda app: app.faces_clients))
    return f"{head}\napps: # written by `poe emit` from the manifests in services/contracts\n{apps}"


def _entry(app: App) -> str:
    is_python = app.language is Language.PYTHON
    serve = ("python", "-m", "services.kit.http.serve", f"{app.module}.app")
    lines = [
        f"configFilePath: components/configuration/apps/{app.id}.yaml",
        f"appDirPath: {'.' if is_python else app.folder}",
        f"appPort: {app.port}",
        f"daprHTTPPort: {SIDECAR_HTTP_PORTS + app.number}",
        f"daprGRPCPort: {SIDECAR_GRPC_PORTS + app.number}",
        f"daprInternalGRPCPort: {SIDECAR_INTERNAL_PORTS + app.number}",
        f"metricsPort: {METRICS_PORTS + app.number}",
        f"command: [{', '.join(app.command or serve)}]",
    ]
    if app.streams:
        lines.insert(0, "appProtocol: h2c # HTTP/1.1 would bound its open streams to 1,024")
    if app.faces_clients:
        lines.insert(-1, "readBufferSize: 64Ki # room for large tokens and queries")
    return f"  - appID: {app.id}\n" + "".join(f"    {line}\n" for line in lines)


def _resource(kind: str, name: str, spec: Resource) -> Resource:
    return {
        "apiVersion": "dapr.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    }


def _text(*resources: Resource) -> str:
    return HEADER + "---\n".join(yaml.safe_dump(one, sort_keys=False) for one in resources)
