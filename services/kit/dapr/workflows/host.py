"""Hosts the workflows and activities of one app."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Generator, Mapping
from concurrent.futures import Future
from datetime import timedelta
from typing import Any, Final, TypeVar

import structlog
from dapr.ext.workflow import DaprWorkflowContext, WorkflowActivityContext, WorkflowRuntime
from dapr.ext.workflow.logger import LoggerOptions
from grpc import RpcError as GrpcError
from pydantic import BaseModel

from services.kit.contract import Empty
from services.kit.dapr.workflows.context import (
    CancelWorkflowsInput,
    Carried,
    WorkflowContext,
    cancel_activity,
)
from services.kit.dapr.workflows.errors import ContinuedAsNew, GraceOver, WorkflowCancelled
from services.kit.dapr.workflows.local import LocalWorkflows
from services.kit.dapr.workflows.payload import bounded
from services.kit.dapr.workflows.registration import RegistrationWatch
from services.kit.references import ActivityRef, AnyWorkflow, I, O

MAX_CONCURRENT_ACTIVITIES: Final = 256
START_RETRY_SECONDS: Final = 0.5

log = structlog.get_logger()

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
        self._local: LocalWorkflows | None = None
        self.ready = asyncio.Event()

    def add_workflow(self, ref: AnyWorkflow, workflow: Workflow) -> None:
        """Host a workflow under its reference's name."""

        def run(context: DaprWorkflowContext, value: Any) -> Generator[Any, Any, Any]:
            carried = Carried.taken_from(value)
            try:
                result = yield from workflow(
                    WorkflowContext(context, ref, carried), ref.input.model_validate(value)
                )
            except ContinuedAsNew:
                return None
            except GraceOver:
                raise WorkflowCancelled(f"{ref.name} was ended after its cancel grace") from None
            if not isinstance(result, ref.output):
                raise TypeError(f"the result of {ref.name} must be a {ref.output.__name__}")
            return bounded(result, f"the result of {ref.name}")

        self._runtime.register_workflow(run, name=ref.name)
        if ref.cancellable and self._local is None:
            self._local = LocalWorkflows()
            self.add_activity(cancel_activity(ref.app_id), self._cancel)

    def add_activity(self, ref: ActivityRef[I, O], activity: Callable[[I], Awaitable[O]]) -> None:
        """Host an activity under its reference's name."""

        async def run(_: WorkflowActivityContext, value: Any) -> Any:
            assert self._loop is not None
            coroutine = _as_coroutine(activity(ref.input.model_validate(value)))
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
            self._running.add(future)
            future.add_done_callback(self._running.discard)
            result = await asyncio.wrap_future(future)
            return bounded(result, f"the result of {ref.name}")

        self._runtime.register_activity(run, name=ref.name)

    async def start(self) -> None:
        """Connect to the sidecar in the background, with retries, and watch the connection."""
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

    async def _cancel(self, request: CancelWorkflowsInput) -> Empty:
        assert self._local is not None
        await self._local.cancel_instances(request.instance_ids)
        return Empty()

    async def _connect(self) -> None:
        while not self.ready.is_set():
            try:
                await asyncio.to_thread(self._runtime.start)
            except (RuntimeError, GrpcError, OSError) as error:
                log.info("workflows.waiting_for_sidecar", error=type(error).__name__)
                await asyncio.sleep(START_RETRY_SECONDS)
            else:
                self.ready.set()
        await RegistrationWatch().run()


async def _as_coroutine(awaitable: Awaitable[O]) -> O:
    return await awaitable
