"""Typed Dapr workflows: the context of a workflow function, the host, and the client of this app's own workflows."""

from services.kit.dapr.workflows.context import WorkflowContext
from services.kit.dapr.workflows.errors import ActivityFailed, ChildFailed, WorkflowCancelled
from services.kit.dapr.workflows.handles import Completed, Failed, Handle, TimedOut
from services.kit.dapr.workflows.host import (
    Workflow,
    WorkflowHost,
    registered_workflows,
    workflow,
)
from services.kit.dapr.workflows.local import LocalWorkflows
from services.kit.dapr.workflows.payload import MAX_PAYLOAD_BYTES

__all__ = [
    "MAX_PAYLOAD_BYTES",
    "ActivityFailed",
    "ChildFailed",
    "Completed",
    "Failed",
    "Handle",
    "LocalWorkflows",
    "TimedOut",
    "Workflow",
    "WorkflowCancelled",
    "WorkflowContext",
    "WorkflowHost",
    "registered_workflows",
    "workflow",
]
