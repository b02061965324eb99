"""Starting workflows: `yocaso.workflows.v1.WorkflowService`, for the other apps of the platform."""

from typing import Annotated, Any, Final

from pydantic import Field, StringConstraints

from services.kit.contract import Empty, Message, RpcService
from services.kit.errors import ErrorCode

InstanceId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,100}$")]


class StartWorkflowRequest(Message):
    """Starts a workflow under a business id; one that exists already is left as it is."""

    workflow: str
    instance_id: InstanceId
    input: dict[str, Any]


class PurgeWorkflowsRequest(Message):
    """Names executions that have ended; what is not there is no error."""

    instance_ids: Annotated[list[InstanceId], Field(max_length=500)]


WORKFLOW_SERVICE: Final = RpcService("yocaso.workflows.v1.WorkflowService", "Starts workflows.")
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
    "Remove the history of workflows that have ended",
    raises=(ErrorCode.INVALID_ARGUMENT, ErrorCode.UNAVAILABLE),
    internal=True,
)
