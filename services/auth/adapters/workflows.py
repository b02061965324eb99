"""Erasures on Dapr Workflow."""

from services.contracts.accounts import DELETE_ACCOUNT, DeleteAccountInput
from services.contracts.workflows import (
    WORKFLOW_SERVICE,
    PurgeWorkflowsRequest,
    StartWorkflowRequest,
)
from services.kit.contract import Empty
from services.kit.dapr.client import RpcClient


class WorkflowErasures:
    """`ErasureWorkflows` by one workflow per receipt, under its id."""

    def __init__(self, client: RpcClient) -> None:
        self._client = client

    async def start(self, account: DeleteAccountInput) -> None:
        """Start it; one that runs is left alone."""
        request = StartWorkflowRequest(
            workflow=DELETE_ACCOUNT.name,
            instance_id=account.deletion_id,
            input=account.model_dump(mode="json"),
        )
        await self._client.call(WORKFLOW_SERVICE, "StartWorkflow", request, Empty)

    async def purge(self, deletion_id: str) -> None:
        """Remove its history."""
        request = PurgeWorkflowsRequest(instance_ids=[deletion_id])
        await self._client.call(WORKFLOW_SERVICE, "PurgeWorkflows", request, Empty)
