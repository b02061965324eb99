"""`yocaso.workflows.v1.WorkflowService`."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends

from services.contracts.workflows.service import (
    WORKFLOW_SERVICE,
    PurgeWorkflowsRequest,
    StartWorkflowRequest,
)
from services.kit.access.authorization import CallingApp
from services.kit.contract import Empty
from services.kit.dapr.workflows import LocalWorkflows
from services.kit.errors import RpcError
from services.kit.http.dependencies import provided
from services.kit.http.rpc import RpcRouter

rpc = RpcRouter(WORKFLOW_SERVICE)


@dataclass(frozen=True, slots=True)
class HostedWorkflows:
    """The names of the workflows that this app hosts."""

    names: frozenset[str]


Deps = Annotated[LocalWorkflows, Depends(provided(LocalWorkflows))]
Hosted = Annotated[HostedWorkflows, Depends(provided(HostedWorkflows))]


@rpc.method
async def start_workflow(
    request: StartWorkflowRequest, _: CallingApp, deps: Deps, hosted: Hosted
) -> Empty:
    """Start a hosted workflow; INVALID_ARGUMENT for any other."""
    if request.workflow not in hosted.names:
        raise RpcError.invalid("workflow", "is not a workflow of this platform")
    await deps.start(request.workflow, request.instance_id, request.input)
    return Empty()


@rpc.method
async def purge_workflows(request: PurgeWorkflowsRequest, _: CallingApp, deps: Deps) -> Empty:
    """Delete the history of ended workflows."""
    for instance_id in request.instance_ids:
        await deps.purge(instance_id)
    return Empty()
