"""Client of the `workflows` app's RPCs."""

from collections.abc import Sequence

from services.contracts.workflows.service import (
    PURGE_WORKFLOWS,
    START_WORKFLOW,
    PurgeWorkflowsRequest,
    StartWorkflowRequest,
)
from services.kit.dapr.client import RpcClient
from services.kit.references import I, WorkflowRef


class WorkflowClient:
    """`Workflows` of every app except the one that hosts them."""

    def __init__(self, client: RpcClient) -> None:
        self._client = client

    async def start(self, workflow: WorkflowRef[I], instance_id: str, value: I) -> None:
        """Start a workflow under a business id; an existing instance is left unchanged.

        Raises:
            RpcError: UNAVAILABLE, with unknown outcome.
        """
        request = StartWorkflowRequest(
            workflow=workflow.name,
            instance_id=instance_id,
            input=value.model_dump(mode="json", exclude_none=True),
        )
        await self._client.call(START_WORKFLOW, request)

    async def purge(self, instance_ids: Sequence[str]) -> None:
        """Remove the history of ended workflows; a missing instance is no error."""
        request = PurgeWorkflowsRequest(instance_ids=list(instance_ids))
        await self._client.call(PURGE_WORKFLOWS, request)
