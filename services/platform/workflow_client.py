"""Client of the `workflows` app's RPCs."""

from collections.abc import Sequence
from typing import Any

from services.contracts.workflows.service import (
    CANCEL_WORKFLOW,
    GET_WORKFLOW_STATUS,
    PURGE_WORKFLOWS,
    RAISE_EVENT,
    START_WORKFLOW,
    CancelWorkflowRequest,
    GetWorkflowStatusRequest,
    PurgeWorkflowsRequest,
    RaiseEventRequest,
    StartWorkflowRequest,
)
from services.kit.dapr.client import RpcClient
from services.kit.dapr.workflows.payload import event_value, require_any_id, start_payload
from services.kit.references import AnyWorkflow, E, EventRef, I, WorkflowRef, WorkflowStatus


class WorkflowClient:
    """`Workflows` of every app except the one that hosts them.

    It validates before it calls, so a wrong argument costs no round trip.
    """

    def __init__(self, client: RpcClient) -> None:
        self._client = client

    async def start(self, workflow: WorkflowRef[I, Any], instance_id: str, value: I) -> None:
        request = StartWorkflowRequest(
            workflow=workflow.name,
            instance_id=instance_id,
            input=start_payload(workflow, instance_id, value),
        )
        await self._client.call(START_WORKFLOW, request)

    async def raise_event(
        self,
        workflow: AnyWorkflow,
        instance_id: str,
        event: EventRef[E],
        value: E,
        *,
        event_id: str,
    ) -> None:
        request = RaiseEventRequest(
            workflow=workflow.name,
            instance_id=instance_id,
            event=event.name,
            event_id=event_id,
            value=event_value(workflow, instance_id, event, value, event_id),
        )
        await self._client.call(RAISE_EVENT, request)

    async def cancel(self, workflow: AnyWorkflow, instance_id: str) -> None:
        require_any_id(instance_id)
        request = CancelWorkflowRequest(workflow=workflow.name, instance_id=instance_id)
        await self._client.call(CANCEL_WORKFLOW, request)

    async def status(self, workflow: AnyWorkflow, instance_id: str) -> WorkflowStatus:
        require_any_id(instance_id)
        request = GetWorkflowStatusRequest(workflow=workflow.name, instance_id=instance_id)
        return (await self._client.call(GET_WORKFLOW_STATUS, request)).status

    async def purge(self, instance_ids: Sequence[str]) -> None:
        request = PurgeWorkflowsRequest(instance_ids=list(instance_ids))
        await self._client.call(PURGE_WORKFLOWS, request)
