"""Runs workflows in memory by the SDK's own executor; every step replays the whole history in a new executor.

Time moves only by `advance` or `run(skip=True)`. Activities are one function of the test; held ones wait for `release`.
"""

import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from dapr.ext.workflow._durabletask.internal import helpers
from dapr.ext.workflow._durabletask.internal import protos as pb
from dapr.ext.workflow._durabletask.worker import _OrchestrationExecutor
from pydantic import BaseModel

from services.kit.dapr.workflows import WorkflowHost
from services.kit.dapr.workflows.handles import CANCEL_EVENT, event_payload
from services.kit.references import AnyEvent, AnyWorkflow

Activity = Callable[[str, str, Any], Awaitable[BaseModel]]
"""Called with app-id, name and input; what it raises fails the activity."""
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Instance:
    """One instance: what daprd stores of it."""

    name: str
    parent: tuple[str, int] | None = None
    history: list[Any] = field(default_factory=list)
    inbox: list[Any] = field(default_factory=list)
    timers: list[tuple[datetime, int]] = field(default_factory=list)
    runs: int = 1
    status: str = "RUNNING"
    result: Any = None
    failure: Any = None
    custom_status: str | None = None
    batches: list[list[Any]] = field(default_factory=list)


@dataclass
class _Pending:
    instance_id: str
    task_id: int
    app_id: str
    name: str
    value: Any
    run: int


class Engine:
    """The part of daprd that workflows see."""

    def __init__(self, host: WorkflowHost, activity: Activity) -> None:
        self._registry: Any = host._runtime._WorkflowRuntime__worker._registry
        self._activity = activity
        self._pending: list[_Pending] = []
        self.held: set[str] = set()
        self.failing_cancels = 0
        self.instances: dict[str, Instance] = {}
        self.now = EPOCH

    async def start(self, workflow: AnyWorkflow, instance_id: str, value: BaseModel) -> Instance:
        """Start a root instance and run until all wait."""
        instance = self._create(workflow.name, instance_id, json.dumps(_dump(value)), None)
        await self.run()
        return instance

    def put(self, instance_id: str, event: AnyEvent, value: Any, event_id: str) -> None:
        """Raise an event without running."""
        payload = event_payload(event_id, _dump(value))
        self.put_raw(instance_id, event.name, payload)

    def put_raw(self, instance_id: str, name: str, payload: Any) -> None:
        raised = helpers.new_event_raised_event(name, json.dumps(payload))
        self.instances[instance_id].inbox.append(raised)

    async def raise_event(
        self, instance_id: str, event: AnyEvent, value: Any, event_id: str
    ) -> None:
        self.put(instance_id, event, value, event_id)
        await self.run()

    async def cancel(self, instance_id: str) -> None:
        self.put_raw(instance_id, CANCEL_EVENT, {"id": ""})
        await self.run()

    async def release(self, name: str) -> None:
        """Let held activities run."""
        self.held.discard(name)
        await self.run()

    async def advance(self, duration: timedelta) -> None:
        """Let time pass, firing timers in order."""
        until = self.now + duration
        while (due := self._next_timer()) is not None and due <= until:
            self.now = due
            self._fire()
            await self.run()
        self.now = until

    async def run(self, *, skip: bool = False) -> None:
        """Run until every instance waits; with `skip` also until no timer is left."""
        while True:
            await self._settle()
            due = self._next_timer()
            if not skip or due is None:
                return
            self.now = max(self.now, due)
            self._fire()

    async def _settle(self) -> None:
        while True:
            for instance_id, instance in list(self.instances.items()):
                if instance.inbox:
                    self._step(instance_id, instance)
            ready = [each for each in self._pending if each.name not in self.held]
            if not ready and not any(each.inbox for each in self.instances.values()):
                return
            for call in ready:
                self._pending.remove(call)
                await self._call(call)

    def _create(
        self, name: str, instance_id: str, encoded: str, parent: tuple[str, int] | None
    ) -> Instance:
        instance = Instance(name, parent)
        instance.inbox.append(_started(name, instance_id, encoded))
        self.instances[instance_id] = instance
        return instance

    def _step(self, instance_id: str, instance: Instance) -> None:
        began = pb.HistoryEvent(workflowStarted=pb.WorkflowStartedEvent(), timestamp=self._stamp())
        batch, instance.inbox = [began, *instance.inbox], []
        if instance.status != "RUNNING":
            return
        executor = _OrchestrationExecutor(self._registry, logging.getLogger("engine"))
        done = executor.execute(instance_id, instance.history, batch)
        instance.history += batch
        instance.batches.append(batch)
        instance.custom_status = done.encoded_custom_status or instance.custom_status
        for action in done.actions:
            self._apply(instance_id, instance, action)

    def _apply(self, instance_id: str, instance: Instance, action: Any) -> None:
        match action.WhichOneof("workflowActionType"):
            case "scheduleTask":
                task = action.scheduleTask
                scheduled = pb.TaskScheduledEvent(name=task.name, input=task.input)
                instance.history.append(pb.HistoryEvent(eventId=action.id, taskScheduled=scheduled))
                call = _Pending(
                    instance_id,
                    action.id,
                    action.router.targetAppID,
                    task.name,
                    json.loads(task.input.value),
                    instance.runs,
                )
                self._pending.append(call)
            case "createTimer":
                created = pb.TimerCreatedEvent(fireAt=action.createTimer.fireAt)
                instance.history.append(pb.HistoryEvent(eventId=action.id, timerCreated=created))
                fire_at = action.createTimer.fireAt.ToDatetime(UTC)
                instance.timers.append((fire_at, action.id))
            case "createChildWorkflow":
                child = action.createChildWorkflow
                created = pb.ChildWorkflowInstanceCreatedEvent(
                    name=child.name, instanceId=child.instanceId
                )
                event = pb.HistoryEvent(eventId=action.id, childWorkflowInstanceCreated=created)
                instance.history.append(event)
                parent = (instance_id, action.id)
                self._create(child.name, child.instanceId, child.input.value, parent)
            case "completeWorkflow":
                self._complete(instance_id, instance, action.completeWorkflow)
            case kind:
                raise AssertionError(f"an action of {kind}")

    def _complete(self, instance_id: str, instance: Instance, completion: Any) -> None:
        status = pb.OrchestrationStatus.Name(completion.workflowStatus)
        instance.timers.clear()
        if status.endswith("CONTINUED_AS_NEW"):
            instance.history, instance.runs = [], instance.runs + 1
            started = _started(instance.name, instance_id, completion.result.value)
            instance.inbox = [started, *completion.carryoverEvents, *instance.inbox]
            return
        instance.status = status.removeprefix("ORCHESTRATION_STATUS_")
        if completion.result.value:
            instance.result = json.loads(completion.result.value)
        instance.failure = completion.failureDetails
        if instance.parent:
            self._report(instance, completion)

    def _report(self, instance: Instance, completion: Any) -> None:
        assert instance.parent
        parent_id, task_id = instance.parent
        if instance.status == "COMPLETED":
            completed = pb.ChildWorkflowInstanceCompletedEvent(
                taskScheduledId=task_id, result=completion.result
            )
            event = pb.HistoryEvent(eventId=-1, childWorkflowInstanceCompleted=completed)
        else:
            failed = pb.ChildWorkflowInstanceFailedEvent(
                taskScheduledId=task_id, failureDetails=completion.failureDetails
            )
            event = pb.HistoryEvent(eventId=-1, childWorkflowInstanceFailed=failed)
        self.instances[parent_id].inbox.append(event)

    async def _call(self, call: _Pending) -> None:
        try:
            result = await self._run_activity(call)
        except Exception as error:
            details = helpers.new_failure_details(error)
            failed = pb.TaskFailedEvent(taskScheduledId=call.task_id, failureDetails=details)
            event = pb.HistoryEvent(eventId=-1, taskFailed=failed)
        else:
            encoded = helpers.get_string_value(json.dumps(_dump(result)))
            completed = pb.TaskCompletedEvent(taskScheduledId=call.task_id, result=encoded)
            event = pb.HistoryEvent(eventId=-1, taskCompleted=completed)
        instance = self.instances[call.instance_id]
        assert instance.runs == call.run, "a completion crossed continue_as_new"
        instance.inbox.append(event)

    async def _run_activity(self, call: _Pending) -> Any:
        if call.name == "CancelWorkflows":
            if self.failing_cancels:
                self.failing_cancels -= 1
                raise ConnectionError("the sidecar is restarting")
            for instance_id in call.value["instance_ids"]:
                self.put_raw(instance_id, CANCEL_EVENT, {"id": ""})
            return {}
        return await self._activity(call.app_id, call.name, call.value)

    def _next_timer(self) -> datetime | None:
        running = (each for each in self.instances.values() if each.status == "RUNNING")
        return min((due for each in running for due, _ in each.timers), default=None)

    def _fire(self) -> None:
        for instance in self.instances.values():
            for due, timer_id in [each for each in instance.timers if each[0] <= self.now]:
                instance.timers.remove((due, timer_id))
                fired = pb.TimerFiredEvent(timerId=timer_id)
                instance.inbox.append(pb.HistoryEvent(eventId=-1, timerFired=fired))

    def _stamp(self) -> Any:
        return helpers.new_timestamp(self.now.replace(tzinfo=None))


def _started(name: str, instance_id: str, encoded: str) -> Any:
    started = pb.ExecutionStartedEvent(
        name=name,
        input=helpers.get_string_value(encoded),
        workflowInstance=pb.WorkflowInstance(instanceId=instance_id),
    )
    return pb.HistoryEvent(
        eventId=-1, executionStarted=started, router=pb.TaskRouter(sourceAppID="workflows")
    )


def _dump(value: Any) -> Any:
    return (
        value.model_dump(mode="json", exclude_none=True) if isinstance(value, BaseModel) else value
    )
