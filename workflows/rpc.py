"""`yocaso.workflows.v1.WorkflowService`."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request

from services.contracts.workflows import (
    WORKFLOW_SERVICE,
    PurgeWorkflowsRequest,
    StartWorkflowRequest,
)
from services.kit.access.authorization import CallingApp
from services.kit.contract import Empty
from services.kit.dapr.workflows import LocalWorkflows, WorkflowRef
from services.kit.errors import RpcError
from services.kit.http.rpc import RpcRouter

rpc = RpcRouter(WORKFLOW_SERVICE)


def provide(
    app: FastAPI, workflows: LocalWorkflows, hosted: Mapping[str, WorkflowRef[Any]]
) -> None:
    """Hand the routes what they work with."""
    app.state.workflows, app.state.hosted = workflows, hosted


async def _workflows(request: Request) -> LocalWorkflows:
    workflows: LocalWorkflows = request.app.state.workflows
    return workflows


async def _hosted(request: Request) -> Mapping[str, WorkflowRef[Any]]:
    hosted: Mapping[str, WorkflowRef[Any]] = request.app.state.hosted
    return hosted


Workflows = Annotated[LocalWorkflows, Depends(_workflows)]
Hosted = Annotated[Mapping[str, WorkflowRef[Any]], Depends(_hosted)]


@rpc.method
async def start_workflow(
    request: StartWorkflowRequest, _: CallingApp, workflows: Workflows, hosted: Hosted
) -> Empty:
    """Start it, if it is one of ours."""
    if request.workflow not in hosted:
        raise RpcError.invalid("workflow", "is not a workflow of this platform")
    await workflows.start(request.workflow, request.instance_id, request.input)
    return Empty()


@rpc.method
async def purge_workflows(
    request: PurgeWorkflowsRequest, _: CallingApp, workflows: Workflows
) -> Empty:
    """Remove their history."""
    for instance_id in request.instance_ids:
        await workflows.purge(instance_id)
    return Empty()
