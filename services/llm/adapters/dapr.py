"""Turns on Dapr Workflow and on the event log."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from services.contracts.events import EventType
from services.contracts.turns import GENERATION_WORKFLOW, GenerationInput
from services.contracts.workflows import (
    WORKFLOW_SERVICE,
    PurgeWorkflowsRequest,
    StartWorkflowRequest,
)
from services.kit.contract import Empty
from services.kit.dapr.client import RpcClient
from services.kit.eventlog import EventLog


class WorkflowTurns:
    """`TurnWorkflows` by one workflow per turn, under the turn's id."""

    def __init__(self, client: RpcClient) -> None:
        self._client = client

    async def start(self, turn: GenerationInput) -> None:
        """Start the workflow; one that runs is left alone."""
        request = StartWorkflowRequest(
            workflow=GENERATION_WORKFLOW.name,
            instance_id=turn.turn_id,
            input=turn.model_dump(mode="json", exclude_none=True),
        )
        await self._client.call(WORKFLOW_SERVICE, "StartWorkflow", request, Empty)

    async def purge(self, turn_ids: Sequence[str]) -> None:
        """Remove the history of workflows that have ended; one that is not there is no error."""
        request = PurgeWorkflowsRequest(instance_ids=list(turn_ids))
        await self._client.call(WORKFLOW_SERVICE, "PurgeWorkflows", request, Empty)


class LoggedTurnStreams:
    """`TurnStreams` over the event log; a turn's workflow goes with its stream."""

    def __init__(self, events: EventLog, workflows: WorkflowTurns, kept: timedelta) -> None:
        self._events = events
        self._kept = kept  # readers of a deleted conversation's last turn still see how it ended
        self._workflows = workflows

    async def purge(self, conversation_id: str) -> tuple[list[str], bool]:
        """End what is open; delete what ended a while ago."""
        streams = await self._events.of_subject(conversation_id)
        for stream in streams:
            if stream.closed_at is None:
                await self._events.close_stream(stream.stream_id, EventType.RUN_CANCELLED, {})
        horizon = datetime.now(UTC) - self._kept
        old = [
            one.stream_id
            for one in streams
            if one.closed_at is not None and one.closed_at < horizon
        ]
        if old:
            await self._workflows.purge(old)
            await self._events.forget(old)
        return old, len(old) < len(streams)
