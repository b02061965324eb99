"""The manifest of `workflows`."""

from typing import Final

from services.contracts.workflows.service import WORKFLOW_SERVICE
from services.kit.manifest import App

APP: Final = App(
    id="workflows",
    purpose="hosts every Dapr workflow",
    number=13,
    package="workflows",
    services=(WORKFLOW_SERVICE,),
    components=("statestore", "secrets"),
    owns=("workflow history in `statestore`",),
)
