"""Generates the chart's Dapr configuration and policies from the same sources as the local files.

The chart's templates add trust domain and namespace of the release. Name resolution is Kubernetes' own.
"""

from pathlib import Path
from typing import Any, Final

import yaml

from services.codegen import dapr
from services.codegen.dapr import (
    COMPONENTS,
    Resource,
    access_policy,
    configuration,
    workflow_policies,
)
from services.codegen.files import HEADER, ROOT
from services.contracts.apps import APPS
from services.kit.dapr.access_policy import operations, user_methods
from services.kit.manifest import App

FILE: Final = ROOT / "charts" / "yocaso" / "files" / "trust.yaml"
PRODUCTION: Final = COMPONENTS / "production"
BUILT_IN_SECRETS: Final = {"storeName": "kubernetes", "defaultAccess": "deny"}
"""The secret store that Dapr adds to every sidecar on Kubernetes."""


def files() -> dict[Path, str]:
    return {FILE: HEADER + yaml.safe_dump(trust(), sort_keys=False)}


def trust() -> dict[str, Any]:
    """Configurations by app-id, the operations of trusted back ends by app-id, and the other resources."""
    written = sorted(dapr.files().items())
    components = [yaml.safe_load(text) for path, text in written if path.parent == PRODUCTION]
    return {
        "configurations": {
            app.id: _configuration(app) for app in sorted(APPS, key=lambda app: app.id)
        },
        "trustedOperations": {
            app.id: operations(calls)
            for app in sorted(APPS, key=lambda app: app.id)
            if (calls := user_methods(app))
        },
        "resources": [*workflow_policies(), *components],
    }


def _configuration(app: App) -> Resource:
    spec = _without(configuration(app)["spec"], "nameResolution")
    control = _without(access_policy(app)["spec"]["accessControl"], "trustDomain")
    policies = [_without(one, "trustDomain", "namespace") for one in control["policies"]]
    scopes = [*spec["secrets"]["scopes"], dict(BUILT_IN_SECRETS)]
    return {
        **spec,
        "secrets": {"scopes": scopes},
        "accessControl": {**control, "policies": policies},
    }


def _without(mapping: Resource, *names: str) -> Resource:
    return {name: value for name, value in mapping.items() if name not in names}
