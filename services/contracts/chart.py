"""What the Helm chart tells Dapr of trust: the data of `charts/yocaso`, from the same sources as the local files.

`python -m services.contracts.chart` writes the data file; with `--check` it only says whether that file differs. Trust
domain and namespace are the release's, so the chart's templates add them. Name resolution is Kubernetes' own.
"""

import sys
from pathlib import Path
from typing import Any, Final

import yaml

from services.contracts.emitted import emit
from services.contracts.policies import (
    APIS,
    COMPONENTS,
    HEADER,
    Resource,
    access_policy,
    activity_policies,
    configuration,
)

FILE: Final = Path(__file__).parents[2] / "charts" / "yocaso" / "files" / "trust.yaml"
PRODUCTION: Final = COMPONENTS / "production"
BUILT_IN_SECRETS: Final = {"storeName": "kubernetes", "defaultAccess": "deny"}
"""The store that Dapr gives every sidecar on Kubernetes, asked or not."""


def trust() -> dict[str, Any]:
    """Each app's configuration by its name, and the other resources whole."""
    components = [yaml.safe_load(file.read_text()) for file in sorted(PRODUCTION.glob("*.yaml"))]
    return {
        "configurations": {app: _configuration(app) for app in APIS},
        "resources": [*activity_policies(), *components],
    }


def _configuration(app: str) -> Resource:
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


def main(arguments: list[str]) -> int:
    """Write the file, or with `--check` say whether it differs; the exit code is 1 when it does."""
    return emit({FILE: HEADER + yaml.safe_dump(trust(), sort_keys=False)}, arguments)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
