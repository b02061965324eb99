"""Typed Dapr workflows: the context of a workflow function, the host, and the client of this app's own workflows."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Generator, Mapping
from concurrent.futures import Future
from datetime import timedelta
from typing import Any, Final, TypeVar

import structlog
from dapr.ext.workflow import DaprWorkflowContext, WorkflowActivityContext, WorkflowRuntime
from dapr.ext.workflow._durabletask.task import TaskFailedError as ActivityFailed
from dapr.ext.workflow.aio import DaprWorkflowClient
from dapr.ext.workflow.logger import LoggerOptions
from grpc import RpcError as GrpcError
from grpc import StatusCode
from grpc.aio import AioRpcError
from pydantic import BaseModel

from services.kit.dapr.sidecar import SidecarError
from services.kit.errors import ErrorCode, RpcError
from services.kit.references import ActivityRef, AnyWorkflow, I, O, WorkflowRef

__all__ = [
    "ActivityFailed",
    "LocalWorkflows",
    "WorkflowContext",
    "WorkflowHost",
    "registered_workflows",
    "workflow",
]

MAX_PAYLOAD_BYTES: Final = 16_384
"""Limit of inputs and outputs: the history stores each of them, so large data is passed by reference."""
MAX_CONCURRENT_ACTIVITIES: Final = 256
START_RETRY_SECONDS: Final = 0.5

log = structlog.get_logger()


class WorkflowContext:
    """The effects of a workflow; everything else in it must be deterministic, as it is replayed."""

    def __init__(self, context: DaprWorkflowContext) -> None:
        self._context: Any = context

    @property
    def instance_id(self) -> str:
        """The instance id, which is a business id."""
        return str(self._context.instance_id)

    def call(self, activity: ActivityRef[I, O], value: I) -> Generator[Any, Any, O]:
        """Run an activity in the app that owns it; used with `yield from`.

        Raises:
            ActivityFailed: the activity raised, or its host is unreachable.
            RpcError: PAYLOAD_TOO_LARGE.
        """
        payload = _bounded(value, f"the input of {activity.name}")
        result = yield self._context.call_activity(
            activity.name, input=payload, app_id=activity.app_id
        )
        return activity.output.model_validate(result)

    def sleep(self, duration: timedelta) -> Generator[Any, Any, None]:
        """Wait by a durable timer; used with `yield from`."""
        yield self._context.create_timer(duration)


Workflow = Callable[[WorkflowContext, Any], Generator[Any, Any, BaseModel]]
W = TypeVar("W", bound=Workflow)

_registered: Final[dict[AnyWorkflow, Workflow]] = {}


def workflow(ref: AnyWorkflow) -> Callable[[W], W]:
    """Decorator that registers the function of a workflow reference."""

    def register(function: W) -> W:
        if ref in _registered:
            raise TypeError(f"{ref.name} has two functions")
        _registered[ref] = function
        return function

    return register


def registered_workflows() -> Mapping[AnyWorkflow, Workflow]:
    """The registered functions, by reference."""
    return _registered


class WorkflowHost:
    """Runs this app's workflows and activities; activities run on the app's event loop and share its pools."""

    def __init__(self) -> None:
        self._runtime: Any = WorkflowRuntime(
            logger_options=LoggerOptions(log_level="WARNING"),
            maximum_concurrent_activity_work_items=MAX_CONCURRENT_ACTIVITIES,
            worker_ready_timeout=10,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting: asyncio.Task[None] | None = None
        self._running: set[Future[Any]] = set()
        self.ready = asyncio.Event()

    def add_workflow(self, ref: WorkflowRef[Any], workflow: Workflow) -> None:
        """Host a workflow under its reference's name."""

        def run(context: DaprWorkflowContext, value: Any) -> Generator[Any, Any, Any]:
            result = yield from workflow(WorkflowContext(context), ref.input.model_validate(value))
            return _bounded(result, f"the result of {ref.name}")

        self._runtime.register_workflow(run, name=ref.name)

    def add_activity(self, ref: ActivityRef[I, O], activity: Callable[[I], Awaitable[O]]) -> None:
        """Host an activity under its reference's name."""

        async def run(_: WorkflowActivityContext, value: Any) -> Any:
            assert self._loop is not None
            coroutine = _as_coroutine(activity(ref.input.model_validate(value)))
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
            self._running.add(future)
            future.add_done_callback(self._running.discard)
            result = await asyncio.wrap_future(future)
            return _bounded(result, f"the result of {ref.name}")

        self._runtime.register_activity(run, name=ref.name)

    async def start(self) -> None:
        """Connect to the sidecar in the background, with retries."""
        self._loop = asyncio.get_running_loop()
        self._starting = asyncio.create_task(self._connect(), name="workflow host")

    async def stop(self, grace: timedelta) -> None:
        """Wait for running activities, then cancel them: another replica repeats them."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        running = [asyncio.wrap_future(future) for future in list(self._running)]
        if running:
            await asyncio.wait(running, timeout=grace.total_seconds())
        for future in list(self._running):
            future.cancel()
        if self.ready.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace.total_seconds()):
                    await asyncio.to_thread(self._runtime.shutdown)

    async def _connect(self) -> None:
        while not self.ready.is_set():
            try:
                await asyncio.to_thread(self._runtime.start)
            except (RuntimeError, GrpcError, OSError) as error:
                log.info("workflows.waiting_for_sidecar", error=type(error).__name__)
                await asyncio.sleep(START_RETRY_SECONDS)
            else:
                self.ready.set()


class LocalWorkflows:
    """Starts and purges this app's own workflows.

    Other apps call it by RPC: daprd 1.18.0 starts a workflow in the calling app, even if another app-id is given.
    """

    def __init__(self) -> None:
        self._client: Any = DaprWorkflowClient(logger_options=LoggerOptions(log_level="WARNING"))

    async def start(self, name: str, instance_id: str, value: Any) -> None:
        """Start a workflow under a business id; an existing instance is left unchanged.

        Raises:
            RpcError: PAYLOAD_TOO_LARGE.
        """
        payload = _bounded(value, f"the input of {name}")
        try:
            await self._client.schedule_new_workflow(name, input=payload, instance_id=instance_id)
        except AioRpcError as error:
            if not _exists(error):
                raise SidecarError(f"{error.code().name}: {error.details()}") from error

    async def purge(self, instance_id: str) -> None:
        """Remove the history of an ended workflow; a missing instance is no error."""
        try:
            await self._client.purge_workflow(instance_id)
        except AioRpcError as error:
            if error.code() is not StatusCode.NOT_FOUND and "no such instance" not in _text(error):
                raise SidecarError(f"{error.code().name}: {error.details()}") from error


def _bounded(value: Any, what: str) -> Any:
    """A value as the history stores it; PAYLOAD_TOO_LARGE over MAX_PAYLOAD_BYTES."""
    payload = (
        value.model_dump(mode="json", exclude_none=True) if isinstance(value, BaseModel) else value
    )
    size = len(json.dumps(payload, ensure_ascii=False).encode())
    if size > MAX_PAYLOAD_BYTES:
        raise RpcError(
            ErrorCode.PAYLOAD_TOO_LARGE,
            f"{what} has {size} bytes; {MAX_PAYLOAD_BYTES} are allowed: pass a reference.",
        )
    return payload


def _text(error: AioRpcError) -> str:
    return (error.details() or "").lower()


def _exists(error: AioRpcError) -> bool:
    return error.code() == StatusCode.ALREADY_EXISTS or "already exists" in _text(error)


async def _as_coroutine(awaitable: Awaitable[O]) -> O:
    return await awaitable
