"""What the Helm chart tells Dapr of trust: the data of `charts/yocaso`, from the same sources as the local files.

Trust domain and namespace are the release's, so the chart's templates add them. Name resolution is Kubernetes' own.
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
from services.kit.manifest import App

FILE: Final = ROOT / "charts" / "yocaso" / "files" / "trust.yaml"
PRODUCTION: Final = COMPONENTS / "production"
BUILT_IN_SECRETS: Final = {"storeName": "kubernetes", "defaultAccess": "deny"}
"""The store that Dapr gives every sidecar on Kubernetes, asked or not."""


def files() -> dict[Path, str]:
    """The file with its content."""
    return {FILE: HEADER + yaml.safe_dump(trust(), sort_keys=False)}


def trust() -> dict[str, Any]:
    """Each app's configuration by its name, and the other resources whole."""
    written = sorted(dapr.files().items())
    components = [yaml.safe_load(text) for path, text in written if path.parent == PRODUCTION]
    return {
        "configurations": {
            app.id: _configuration(app) for app in sorted(APPS, key=lambda app: app.id)
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
