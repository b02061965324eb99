"""Client of this app's own workflows."""

import functools
from collections.abc import Awaitable, Sequence
from typing import Any, Final, TypeVar

from dapr.ext.workflow.aio import DaprWorkflowClient
from dapr.ext.workflow.logger import LoggerOptions
from grpc import StatusCode
from grpc.aio import AioRpcError

from services.kit.dapr.sidecar import SidecarError
from services.kit.dapr.workflows.errors import CANCELLED_TYPE
from services.kit.dapr.workflows.handles import CANCEL_EVENT, event_payload
from services.kit.dapr.workflows.payload import event_value, require_any_id, start_payload
from services.kit.errors import ErrorCode, RpcError, not_found
from services.kit.references import AnyWorkflow, E, EventRef, I, WorkflowRef, WorkflowStatus

T = TypeVar("T")
ENDED: Final = frozenset(
    {WorkflowStatus.COMPLETED, WorkflowStatus.CANCELLED, WorkflowStatus.FAILED}
)
TORN_READ: Final = "missing from state store"
"""daprd 1.18.0 reads the rows of an instance one by one, and fails if a step commits meanwhile."""
READS: Final = 5


class LocalWorkflows:
    """`Workflows` of the app that hosts them.

    Other apps call it by RPC: daprd 1.18.0 starts a workflow in the calling app, even if another app-id is given.
    """

    @functools.cached_property
    def _client(self) -> Any:
        return DaprWorkflowClient(logger_options=LoggerOptions(log_level="ERROR"))

    async def start(self, workflow: WorkflowRef[I, Any], instance_id: str, value: I) -> None:
        payload = start_payload(workflow, instance_id, value)
        # daprd would run a completed instance again.
        if await self._status(workflow, instance_id) in (None, WorkflowStatus.FAILED):
            try:
                await self._client.schedule_new_workflow(
                    workflow.name, input=payload, instance_id=instance_id
                )
            except AioRpcError as error:
                if not _exists(error):
                    raise _failed(error) from error

    async def raise_event(
        self,
        workflow: AnyWorkflow,
        instance_id: str,
        event: EventRef[E],
        value: E,
        *,
        event_id: str,
    ) -> None:
        stored = event_value(workflow, instance_id, event, value, event_id)
        if await self.status(workflow, instance_id) in ENDED:
            raise RpcError(ErrorCode.FAILED_PRECONDITION, "The workflow has ended.")
        await _call(
            self._client.raise_workflow_event(
                instance_id, event.name, data=event_payload(event_id, stored)
            )
        )

    async def cancel(self, workflow: AnyWorkflow, instance_id: str) -> None:
        require_any_id(instance_id)
        if not workflow.cancellable:
            raise RpcError(ErrorCode.FAILED_PRECONDITION, f"{workflow.name} cannot be cancelled.")
        if await self.status(workflow, instance_id) not in ENDED:
            await self.cancel_instances([instance_id])

    async def status(self, workflow: AnyWorkflow, instance_id: str) -> WorkflowStatus:
        require_any_id(instance_id)
        status = await self._status(workflow, instance_id)
        if status is None:
            raise not_found("workflow")
        return status

    async def purge(self, instance_ids: Sequence[str]) -> None:
        for instance_id in instance_ids:
            await _call(self._client.purge_workflow(instance_id), missing_ok=True)

    async def cancel_instances(self, instance_ids: Sequence[str]) -> None:
        """Raise the cancel event to these; a missing instance is no error."""
        for instance_id in instance_ids:
            raising = self._client.raise_workflow_event(instance_id, CANCEL_EVENT, data={"id": ""})
            await _call(raising, missing_ok=True)

    async def _status(self, workflow: AnyWorkflow, instance_id: str) -> WorkflowStatus | None:
        state = await self._state(instance_id)
        if state is None:
            return None
        # daprd gives no name while an instance is being created.
        if state.name not in (workflow.name, ""):
            raise RpcError(
                ErrorCode.FAILED_PRECONDITION, f"The instance is not one of {workflow.name}."
            )
        return _status_of(state)

    async def _state(self, instance_id: str) -> Any:
        reads = 0
        while True:
            reads += 1
            try:
                return await _call(self._client.get_workflow_state(instance_id), missing_ok=True)
            except SidecarError as error:
                if TORN_READ not in str(error) or reads == READS:
                    raise


def _status_of(state: Any) -> WorkflowStatus:
    match state.runtime_status.name:
        case "COMPLETED":
            return WorkflowStatus.COMPLETED
        case "TERMINATED":
            return WorkflowStatus.CANCELLED
        case "FAILED":
            cancelled = state.failure_details and state.failure_details.error_type == CANCELLED_TYPE
            return WorkflowStatus.CANCELLED if cancelled else WorkflowStatus.FAILED
        case _:
            cancelling = state.serialized_custom_status == WorkflowStatus.CANCELLING
            return WorkflowStatus.CANCELLING if cancelling else WorkflowStatus.RUNNING


async def _call(call: Awaitable[T], *, missing_ok: bool = False) -> T | None:
    try:
        return await call
    except AioRpcError as error:
        if missing_ok and _is_missing(error):
            return None
        raise _failed(error) from error


def _failed(error: AioRpcError) -> SidecarError:
    return SidecarError(f"{error.code().name}: {error.details()}")


def _is_missing(error: AioRpcError) -> bool:
    return error.code() is StatusCode.NOT_FOUND or "no such instance" in _text(error)


def _exists(error: AioRpcError) -> bool:
    return error.code() is StatusCode.ALREADY_EXISTS or "already exists" in _text(error)


def _text(error: AioRpcError) -> str:
    return (error.details() or "").lower()
