"""A small multi-app run template, and faults for which `dapr run -f` and `yocaso` both refuse it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

TEMPLATE: Final = """
version: 1
common:
  resourcesPaths: [components]
  placementHostAddress: 127.0.0.1:6050
  enableAppHealthCheck: true
  logLevel: info
  env: {SHARED: one, KEPT: common}
apps:
  - appID: llm
    appDirPath: apps/llm
    configFilePath: config.yaml
    appPort: 7102
    daprHTTPPort: 3512
    daprGRPCPort: 4512
    daprInternalGRPCPort: 5512
    metricsPort: 9512
    command: [python, -m, llm]
    logLevel: debug
    env: {SHARED: two, NUMBER: 7}
"""


@dataclass(frozen=True, slots=True)
class Fault:
    """A replacement in the template, and the field that the error names."""

    old: str
    new: str
    field: str


FAULTS: Final = {
    "no version": Fault("version: 1", "name: one", "version"),
    "no app": Fault("apps:", "apps: []\nx:", "apps"),
    "no folder of the app": Fault("appDirPath: apps/llm", "", "appDirPath"),
    "an absent folder of the app": Fault("apps/llm", "apps/none", "apps.0.appDirPath"),
    "an absent path of common": Fault("[components]", "[none]", "common.resourcesPaths.0"),
    "a path of the app relative to the file": Fault(
        "configFilePath: config.yaml",
        "configFilePath: apps/llm/config.yaml",
        "apps.0.configFilePath",
    ),
    "an absent deprecated path": Fault(
        "logLevel: debug", "resourcesPath: none", "apps.0.resourcesPath"
    ),
    "a quoted port": Fault("appPort: 7102", 'appPort: "7102"', "apps.0.appPort"),
    "a quoted switch": Fault(
        "enableAppHealthCheck: true", 'enableAppHealthCheck: "true"', "common.enableAppHealthCheck"
    ),
    "an unknown log destination": Fault(
        "logLevel: debug", "appLogDestination: nowhere", "apps.0.appLogDestination"
    ),
}


def write_template(folder: Path, text: str = TEMPLATE) -> Path:
    """Write `dapr.yaml` and the files that `TEMPLATE` names."""
    app = folder / "apps" / "llm"
    for each in (folder / "components", app):
        each.mkdir(parents=True, exist_ok=True)
    (app / "config.yaml").write_text("kind: Configuration\n")
    path = folder / "dapr.yaml"
    path.write_text(text)
    return path
