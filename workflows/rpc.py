"""`yocaso.workflows.v1.WorkflowService`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import pydantic
from fastapi import Depends

from services.contracts.workflows.service import (
    WORKFLOW_SERVICE,
    CancelWorkflowRequest,
    GetWorkflowStatusRequest,
    GetWorkflowStatusResponse,
    PurgeWorkflowsRequest,
    RaiseEventRequest,
    StartWorkflowRequest,
)
from services.kit.access.authorization import CallingApp
from services.kit.contract import Empty
from services.kit.dapr.workflows import LocalWorkflows
from services.kit.errors import RpcError
from services.kit.http.dependencies import provided
from services.kit.http.rpc import RpcRouter, invalid_argument
from services.kit.references import AnyEvent, AnyWorkflow, I

rpc = RpcRouter(WORKFLOW_SERVICE)


@dataclass(frozen=True, slots=True)
class HostedWorkflows:
    """The workflows that this app hosts, by name."""

    refs: Mapping[str, AnyWorkflow]

    def named(self, name: str) -> AnyWorkflow:
        """The workflow of a name.

        Raises:
            RpcError: INVALID_ARGUMENT.
        """
        if name not in self.refs:
            raise RpcError.invalid("workflow", "is not a workflow of this platform")
        return self.refs[name]


Deps = Annotated[LocalWorkflows, Depends(provided(LocalWorkflows))]
Hosted = Annotated[HostedWorkflows, Depends(provided(HostedWorkflows))]


@rpc.method
async def start_workflow(
    request: StartWorkflowRequest, _: CallingApp, deps: Deps, hosted: Hosted
) -> Empty:
    """Start a hosted workflow; INVALID_ARGUMENT for any other and for an input that it refuses."""
    workflow = hosted.named(request.workflow)
    await deps.start(workflow, request.instance_id, _parse(workflow.input, request.input))
    return Empty()


@rpc.method
async def raise_event(
    request: RaiseEventRequest, _: CallingApp, deps: Deps, hosted: Hosted
) -> Empty:
    """Raise an event; INVALID_ARGUMENT for a value that it refuses, before it enters the history."""
    workflow = hosted.named(request.workflow)
    event = _event(workflow, request.event)
    value = _parse(event.message, request.value)
    await deps.raise_event(workflow, request.instance_id, event, value, event_id=request.event_id)
    return Empty()


@rpc.method
async def cancel_workflow(
    request: CancelWorkflowRequest, _: CallingApp, deps: Deps, hosted: Hosted
) -> Empty:
    """Ask a workflow to end."""
    await deps.cancel(hosted.named(request.workflow), request.instance_id)
    return Empty()


@rpc.method
async def get_workflow_status(
    request: GetWorkflowStatusRequest, _: CallingApp, deps: Deps, hosted: Hosted
) -> GetWorkflowStatusResponse:
    """The status of an instance."""
    status = await deps.status(hosted.named(request.workflow), request.instance_id)
    return GetWorkflowStatusResponse(status=status)


@rpc.method
async def purge_workflows(request: PurgeWorkflowsRequest, _: CallingApp, deps: Deps) -> Empty:
    """Delete the history of ended workflows."""
    await deps.purge(request.instance_ids)
    return Empty()


def _event(workflow: AnyWorkflow, name: str) -> AnyEvent:
    for event in workflow.events:
        if event.name == name:
            return event
    raise RpcError.invalid("event", f"is not an event of {workflow.name}")


def _parse(message: type[I], value: Mapping[str, Any]) -> I:
    try:
        return message.model_validate(value)
    except pydantic.ValidationError as error:
        raise invalid_argument(error) from None
