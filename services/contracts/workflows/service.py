"""Workflows of other apps: `yocaso.workflows.v1.WorkflowService`, internal."""

from typing import Annotated, Any, Final

from pydantic import Field

from services.kit.contract import Empty, Message, RpcService
from services.kit.errors import ErrorCode
from services.kit.references import AnyInstanceId, InstanceId, WorkflowStatus


class StartWorkflowRequest(Message):
    """Starts a workflow under a business id; a failed instance starts again, any other is left unchanged."""

    workflow: str
    instance_id: InstanceId
    input: dict[str, Any]


class RaiseEventRequest(Message):
    """Raises an event to a running workflow, which takes an event id once."""

    workflow: str
    instance_id: AnyInstanceId
    event: str
    event_id: InstanceId
    value: dict[str, Any]


class CancelWorkflowRequest(Message):
    """Asks a workflow and its children to end; does nothing if it has ended."""

    workflow: str
    instance_id: AnyInstanceId


class GetWorkflowStatusRequest(Message):
    """Identifies an instance of a workflow."""

    workflow: str
    instance_id: AnyInstanceId


class GetWorkflowStatusResponse(Message):
    """The status; an activity of a CANCELLING workflow may stop early."""

    status: WorkflowStatus


class PurgeWorkflowsRequest(Message):
    """Deletes the history of ended workflows and of their children; unknown ids are ignored."""

    instance_ids: Annotated[list[InstanceId], Field(max_length=500)]


_ANSWERS: Final = (ErrorCode.INVALID_ARGUMENT, ErrorCode.FAILED_PRECONDITION, ErrorCode.UNAVAILABLE)

WORKFLOW_SERVICE: Final = RpcService(
    "yocaso.workflows.v1.WorkflowService",
    "Starts, cancels and purges workflows, and raises events to them.",
)
START_WORKFLOW: Final = WORKFLOW_SERVICE.unary(
    "StartWorkflow",
    StartWorkflowRequest,
    Empty,
    "Start a workflow",
    raises=(*_ANSWERS, ErrorCode.PAYLOAD_TOO_LARGE),
    internal=True,
)
RAISE_EVENT: Final = WORKFLOW_SERVICE.unary(
    "RaiseEvent",
    RaiseEventRequest,
    Empty,
    "Raise an event to a workflow",
    raises=(*_ANSWERS, ErrorCode.NOT_FOUND, ErrorCode.PAYLOAD_TOO_LARGE),
    internal=True,
)
CANCEL_WORKFLOW: Final = WORKFLOW_SERVICE.unary(
    "CancelWorkflow",
    CancelWorkflowRequest,
    Empty,
    "Cancel a workflow",
    raises=(*_ANSWERS, ErrorCode.NOT_FOUND),
    internal=True,
)
GET_WORKFLOW_STATUS: Final = WORKFLOW_SERVICE.unary(
    "GetWorkflowStatus",
    GetWorkflowStatusRequest,
    GetWorkflowStatusResponse,
    "Read the status of a workflow",
    raises=(*_ANSWERS, ErrorCode.NOT_FOUND),
    internal=True,
)
PURGE_WORKFLOWS: Final = WORKFLOW_SERVICE.unary(
    "PurgeWorkflows",
    PurgeWorkflowsRequest,
    Empty,
    "Delete the history of ended workflows",
    raises=(ErrorCode.INVALID_ARGUMENT, ErrorCode.UNAVAILABLE),
    internal=True,
)
