"""Starting and purging workflows: `yocaso.workflows.v1.WorkflowService`, internal."""

from typing import Annotated, Any, Final

from pydantic import Field, StringConstraints

from services.kit.contract import Empty, Message, RpcService
from services.kit.errors import ErrorCode

InstanceId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,100}$")]


class StartWorkflowRequest(Message):
    """Starts a workflow under a business id; does nothing if the id exists."""

    workflow: str
    instance_id: InstanceId
    input: dict[str, Any]


class PurgeWorkflowsRequest(Message):
    """Deletes the history of ended workflows; unknown ids are ignored."""

    instance_ids: Annotated[list[InstanceId], Field(max_length=500)]


WORKFLOW_SERVICE: Final = RpcService(
    "yocaso.workflows.v1.WorkflowService", "Starts and purges workflows."
)
START_WORKFLOW: Final = WORKFLOW_SERVICE.unary(
    "StartWorkflow",
    StartWorkflowRequest,
    Empty,
    "Start a workflow",
    raises=(ErrorCode.INVALID_ARGUMENT, ErrorCode.UNAVAILABLE),
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
