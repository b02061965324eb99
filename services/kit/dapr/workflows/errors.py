"""Failures that a workflow sees at its waits, and the control flow of its host."""

from typing import Final

from dapr.ext.workflow._durabletask.task import TaskFailedError as ActivityFailed

CANCELLED_TYPE: Final = "WorkflowCancelled"

__all__ = ["ActivityFailed", "ChildFailed", "ContinuedAsNew", "GraceOver", "WorkflowCancelled"]


class WorkflowCancelled(Exception):
    """A cancel request; raised once, at the first wait that sees it. Uncaught, the workflow ends as CANCELLED."""


class ChildFailed(Exception):
    """A child workflow failed, or was cancelled."""

    def __init__(self, instance_id: str, failure: ActivityFailed) -> None:
        super().__init__(f"{instance_id}: {failure.details.message}")
        self.instance_id = instance_id
        self.cancelled = failure.details.error_type == CANCELLED_TYPE


class ContinuedAsNew(BaseException):
    """Ends the run that continues as new."""


class GraceOver(BaseException):
    """Ends a workflow that still runs at the end of its cancel grace."""
