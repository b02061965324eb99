"""Histories of workflows as daprd stores them, and their replay by the code of today."""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dapr.ext.workflow._durabletask.internal import protos as pb
from dapr.ext.workflow._durabletask.worker import _OrchestrationExecutor
from google.protobuf.json_format import MessageToDict, ParseDict

from services.kit.dapr.workflows import WorkflowHost

ROOT: Final = Path(__file__).parents[2]
HISTORIES: Final = ROOT / "tests" / "unit" / "workflows" / "histories"
STEPS: Final = {
    "taskScheduled": "scheduleTask",
    "timerCreated": "createTimer",
    "childWorkflowInstanceCreated": "createChildWorkflow",
    "executionCompleted": "completeWorkflow",
    "continueAsNew": "completeWorkflow",
}
"""Events that record what the workflow did, and the action that each was; the others are what it was told."""
ADVICE: Final = (
    "Instances that run when this is installed would fail. Keep the function for them, and give the changed one a new "
    "name (`…V2`) which callers start from now on. Only if no instance can be in flight, record the histories again: "
    "`uv run python -m tests.support.record_histories`."
)


class ChangedWorkflow(AssertionError):
    """Today's code takes other steps than a recorded history."""


@dataclass(frozen=True, slots=True)
class History:
    """One instance: its workflow's name, and its events in order."""

    workflow: str
    instance_id: str
    events: Sequence[Any]

    @classmethod
    def load(cls, path: Path) -> "History":
        """Read a recorded history."""
        stored = json.loads(path.read_text())
        events = [ParseDict(event, pb.HistoryEvent()) for event in stored["events"]]
        return cls(stored["workflow"], stored["instance_id"], events)

    @classmethod
    def parse(cls, instance_id: str, rows: Sequence[bytes]) -> "History":
        """A history from daprd's rows."""
        events = [pb.HistoryEvent.FromString(row) for row in rows]
        [started] = [each for each in events if each.HasField("executionStarted")]
        return cls(started.executionStarted.name, instance_id, events)

    @property
    def has_ended(self) -> bool:
        return any(each.HasField("executionCompleted") for each in self.events)

    def save(self, path: Path) -> None:
        stored = {
            "workflow": self.workflow,
            "instance_id": self.instance_id,
            "events": [MessageToDict(event) for event in self.events],
        }
        path.write_text(json.dumps(stored, indent=1) + "\n")

    def batches(self) -> Iterator[tuple[list[Any], list[Any], list[Any]]]:
        """Per execution: the events before it, those it was given, and those that record its steps."""
        starts = [
            place for place, each in enumerate(self.events) if each.HasField("workflowStarted")
        ]
        for begin, end in zip(starts, [*starts[1:], len(self.events)], strict=True):
            batch = self.events[begin:end]
            given = [each for each in batch if _kind(each) not in STEPS]
            yield list(self.events[:begin]), given, [each for each in batch if each not in given]


def replay(host: WorkflowHost, history: History) -> None:
    """Execute every step of a history again, each by a new executor over the steps before it.

    Raises:
        ChangedWorkflow: a step differs by kind, number or name, or the workflow ends otherwise.
    """
    registry: Any = host._runtime._WorkflowRuntime__worker._registry
    for number, (before, given, steps) in enumerate(history.batches(), 1):
        executor = _OrchestrationExecutor(registry, logging.getLogger("replay"))
        done = executor.execute(history.instance_id, before, given)
        now = [_of_action(action) for action in done.actions]
        then = [_of_event(event) for event in steps]
        if now != then:
            raise ChangedWorkflow(
                f"{history.workflow} does not repeat execution {number} of the history of "
                f"{history.instance_id}: it did {then}, and now does {now}. {ADVICE}"
            )


def _kind(event: Any) -> str:
    return event.WhichOneof("eventType")


def _of_event(event: Any) -> tuple[Any, ...]:
    """A recorded step: its kind and number, and a name or an end."""
    kind = _kind(event)
    action = STEPS[kind]
    recorded = getattr(event, kind)
    if action == "completeWorkflow":
        return action, _status(recorded), _failure(recorded)
    return action, event.eventId, recorded.name


def _of_action(action: Any) -> tuple[Any, ...]:
    """The same of an action of today's code."""
    kind = action.WhichOneof("workflowActionType")
    taken = getattr(action, kind)
    if kind == "completeWorkflow":
        return kind, _status(taken), _failure(taken)
    return kind, action.id, taken.name


def _status(completion: Any) -> str:
    return pb.OrchestrationStatus.Name(completion.workflowStatus)


def _failure(completion: Any) -> str:
    return completion.failureDetails.errorMessage
