"""The context of a workflow function: every effect and every wait."""

from collections.abc import Generator, Sequence
from datetime import timedelta
from typing import Any, Final, NoReturn, Self, TypeVar

from dapr.ext.workflow import DaprWorkflowContext, RetryPolicy
from dapr.ext.workflow._durabletask.task import WhenAnyTask
from pydantic import BaseModel, Field

from services.kit.contract import Empty
from services.kit.dapr.workflows.errors import ContinuedAsNew, GraceOver, WorkflowCancelled
from services.kit.dapr.workflows.handles import (
    CANCEL_EVENT,
    ChildHandle,
    Completed,
    EventHandle,
    EventQueue,
    Failed,
    Handle,
    TaskHandle,
    TimedOut,
)
from services.kit.dapr.workflows.payload import bounded, require_any_id, require_id
from services.kit.references import (
    ActivityRef,
    AnyWorkflow,
    E,
    EventRef,
    I,
    O,
    WorkflowRef,
    WorkflowStatus,
)

T = TypeVar("T")
CARRIED_KEY: Final = "yocaso.carried"
CANCEL_RETRY: Final = RetryPolicy(
    first_retry_interval=timedelta(seconds=1), max_number_of_attempts=8, backoff_coefficient=2
)


class CancelWorkflowsInput(BaseModel):
    """Instances to cancel."""

    instance_ids: list[str]


class Carried(BaseModel):
    """What a run hands to the next one beside the input."""

    run: int = 0
    seen: list[str] = Field(default_factory=list[str])

    @classmethod
    def taken_from(cls, value: Any) -> Self:
        """Remove it from an input as stored."""
        return cls.model_validate(value.pop(CARRIED_KEY, {}) if isinstance(value, dict) else {})


STEPS_PER_RUN: Final = 10_000
"""More than the steps of a run: its history stays under 500 events."""


def cancel_activity(app_id: str) -> ActivityRef[CancelWorkflowsInput, Empty]:
    """The activity by which a cancelled workflow cancels its children; every host of workflows has it."""
    return ActivityRef("CancelWorkflows", app_id, CancelWorkflowsInput, Empty)


def _number_steps_from(context: Any, first: int) -> None:
    """Give the steps of each run of a continued instance their own numbers.

    daprd before 1.18.1 keeps a completion of the run before, and takes it for the step with its number.
    """
    inner = getattr(context, "_DaprWorkflowContext__obj", context)
    inner._sequence_number = first


class WorkflowContext:
    """The effects of a workflow; everything else in it must be deterministic, as it is replayed.

    Methods that return a generator are used with `yield from`. The wait that sees a cancel request raises
    `WorkflowCancelled`; later waits are for cleaning up, until the grace is over.
    """

    def __init__(self, context: DaprWorkflowContext, ref: AnyWorkflow, carried: Carried) -> None:
        self._context: Any = context
        self._ref = ref
        self._run = carried.run
        _number_steps_from(context, carried.run * STEPS_PER_RUN)
        self._queue = EventQueue(context, carried.seen)
        self._events: dict[str, EventHandle[Any]] = {}
        self._calls: list[TaskHandle[Any]] = []
        self._children: dict[str, ChildHandle[Any]] = {}
        self._cancel_request = self._queue.listen(CANCEL_EVENT) if ref.cancellable else None
        self._grace: Any = None

    @property
    def instance_id(self) -> str:
        """The instance id, which is a business id or that of a child."""
        return str(self._context.instance_id)

    def begin(self, activity: ActivityRef[I, O], value: I) -> Handle[O]:
        """Begin an activity in the app that owns it.

        Raises:
            RpcError: PAYLOAD_TOO_LARGE.
        """
        payload = bounded(value, f"the input of {activity.name}")
        task = self._context.call_activity(activity.name, input=payload, app_id=activity.app_id)
        handle = TaskHandle(task, activity.output.model_validate)
        self._calls.append(handle)
        return handle

    def begin_child(self, workflow: WorkflowRef[I, O], value: I, key: str) -> ChildHandle[O]:
        """Begin a child workflow; its id is made of this instance's id and `key`.

        A parent that dies while it begins a child that ends at once may run it twice: its effects are repeatable.

        Raises:
            RpcError: PAYLOAD_TOO_LARGE, INVALID_ARGUMENT for a key that is not an `InstanceId`.
            ValueError: another app hosts it, or the key was used before.
        """
        if workflow.app_id != self._ref.app_id:
            raise ValueError(f"{workflow.name} is hosted by {workflow.app_id}: start it from there")
        if key in self._children:
            raise ValueError(f"{self.instance_id} already has a child {key}")
        require_id(key, "key")
        child_id = f"{self.instance_id}:{f'{self._run}.' if self._run else ''}{key}"
        require_any_id(child_id)
        payload = bounded(value, f"the input of {workflow.name}")
        task = self._context.call_child_workflow(workflow.name, input=payload, instance_id=child_id)
        handle = ChildHandle(task, workflow.output, child_id)
        self._children[key] = handle
        return handle

    def timer(self, duration: timedelta) -> Handle[None]:
        """Begin a durable timer."""
        return TaskHandle(self._context.create_timer(duration), lambda _: None)

    def event(self, event: EventRef[E]) -> Handle[E]:
        """Listen for an event that the workflow declares; the last wait for it gets it.

        Events keep their order, also those from before the wait; a repeated event id is skipped.
        """
        if event not in self._ref.events:
            raise ValueError(f"{self._ref.name} does not declare the event {event.name}")
        if previous := self._events.get(event.name):
            previous.abandon()
        handle = EventHandle(self._queue, event)
        self._events[event.name] = handle
        return handle

    def call(self, activity: ActivityRef[I, O], value: I) -> Generator[Any, Any, O]:
        """Run an activity.

        Raises:
            ActivityFailed: the activity raised, or its host is unreachable.
            RpcError: PAYLOAD_TOO_LARGE.
        """
        return (yield from self.wait(self.begin(activity, value)))

    def call_child(self, workflow: WorkflowRef[I, O], value: I, key: str) -> Generator[Any, Any, O]:
        """Run a child workflow, like `begin_child`.

        Raises:
            ChildFailed: the child failed or was cancelled.
        """
        return (yield from self.wait(self.begin_child(workflow, value, key)))

    def sleep(self, duration: timedelta) -> Generator[Any, Any, None]:
        """Wait by a durable timer."""
        yield from self.wait(self.timer(duration))

    def wait_for(self, event: EventRef[E], timeout: timedelta) -> Generator[Any, Any, E | TimedOut]:
        """The next event of a reference, or TIMED_OUT; an event that comes later is kept for the next wait."""
        awaited = self.event(event)
        if not awaited.done():
            yield from self._first_of((awaited, self.timer(timeout)))
        return awaited.result() if awaited.done() else TimedOut.TIMED_OUT

    def wait(self, handle: Handle[T]) -> Generator[Any, Any, T]:
        """The result of a handle.

        Raises:
            ActivityFailed, ChildFailed: as by its kind.
        """
        yield from self._first_of((handle,))
        return handle.result()

    def when_any(self, *handles: Handle[Any]) -> Generator[Any, Any, Handle[Any]]:
        """The first of the handles that is done; the others go on and can be waited for again."""
        if not handles:
            raise ValueError("when_any needs a handle")
        return (yield from self._first_of(handles))

    def when_all(
        self, handles: Sequence[Handle[T]]
    ) -> Generator[Any, Any, list[Completed[T] | Failed]]:
        """The outcomes of all handles, in their order; a failure does not end the wait for the others."""
        for handle in handles:
            yield from self._first_of((handle,))
        return [handle.outcome() for handle in handles]

    def continue_as_new(self, value: BaseModel) -> Generator[Any, Any, NoReturn]:
        """Start this instance over with another input and an empty history; events that were not taken are kept.

        Used as `return (yield from ctx.continue_as_new(value))`.

        It first waits for running activities and children, because daprd before 1.18.1 takes a completion that comes
        later for one of the next run. Pending timers are dropped.

        Raises:
            RpcError: PAYLOAD_TOO_LARGE.
            WorkflowCancelled: again, in a cancelled workflow.
        """
        if not isinstance(value, self._ref.input):
            raise TypeError(f"the input of {self._ref.name} must be a {self._ref.input.__name__}")
        payload = bounded(value, f"the input of {self._ref.name}")
        if self._grace is not None:
            raise WorkflowCancelled("a cancelled workflow does not continue as new")
        yield from self._raise_if_cancelled()
        for handle in (*self._calls, *self._children.values()):
            yield from self._first_of((handle,))
        for handle in self._events.values():
            handle.abandon()
        if self._cancel_request is not None:
            self._queue.give_back(CANCEL_EVENT, self._cancel_request)
        carried = Carried(run=self._run + 1, seen=self._queue.seen())
        self._context.continue_as_new(
            {**payload, CARRIED_KEY: carried.model_dump()}, save_events=True
        )
        raise ContinuedAsNew

    def _first_of(self, handles: Sequence[Handle[Any]]) -> Generator[Any, Any, Handle[Any]]:
        while True:
            yield from self._raise_if_cancelled()
            for handle in handles:
                if handle.done():
                    return handle
            interrupt = self._grace or self._cancel_request
            tasks = dict.fromkeys(handle.task for handle in handles)
            yield WhenAnyTask([*tasks, *([interrupt] if interrupt else [])])

    def _raise_if_cancelled(self) -> Generator[Any, Any, None]:
        if self._cancel_request is None or not self._cancel_request.is_complete:
            return
        if self._grace is not None:
            if self._grace.is_complete:
                raise GraceOver
            return
        self._grace = self._context.create_timer(self._ref.cancel_grace)
        self._context.set_custom_status(WorkflowStatus.CANCELLING.value)
        if running := [each.instance_id for each in self._children.values() if not each.done()]:
            # Awaited, also over the grace: its retries, and an activity begun in the last step, end with the workflow.
            yield WhenAnyTask([self._cancel_children(running)])
        raise WorkflowCancelled(f"{self.instance_id} was cancelled")

    def _cancel_children(self, instance_ids: list[str]) -> Any:
        return self._context.call_activity(
            cancel_activity(self._ref.app_id).name,
            input=CancelWorkflowsInput(instance_ids=instance_ids).model_dump(),
            retry_policy=CANCEL_RETRY,
        )
