"""Typed references to activities, workflows and their events, which contracts declare and other apps call by."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Final, Generic, Protocol, TypeVar

from pydantic import BaseModel, StringConstraints

I = TypeVar("I", bound=BaseModel)  # noqa: E741 - input
O = TypeVar("O", bound=BaseModel)  # noqa: E741 - output
E = TypeVar("E", bound=BaseModel)

InstanceId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,100}$")]
"""The id of a workflow that an app starts, which is a business id; also the id of an event and the key of a child."""
AnyInstanceId = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,100}(:([0-9]{1,6}\.)?[A-Za-z0-9_-]{1,100}){0,4}$"),
]
"""An `InstanceId`, or the id of a child: `<parent>:<key>`, `<parent>:<n>.<key>` after n times `continue_as_new`."""
CANCEL_GRACE: Final = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class ActivityRef(Generic[I, O]):
    """An activity: its name, the app that hosts it, and its messages."""

    name: str
    app_id: str
    input: type[I]
    output: type[O]


@dataclass(frozen=True, slots=True)
class EventRef(Generic[E]):
    """An external event that a workflow waits for: its name and its message."""

    name: str
    message: type[E]


@dataclass(frozen=True, slots=True)
class WorkflowRef(Generic[I, O]):
    """A workflow: its name, the app that hosts it, its messages, and the events that may be raised to it.

    A `cancellable` one has `cancel_grace` to end after a cancel request.
    """

    name: str
    app_id: str
    input: type[I]
    output: type[O]
    events: tuple[EventRef[Any], ...] = ()
    cancellable: bool = False
    cancel_grace: timedelta = CANCEL_GRACE


class WorkflowStatus(StrEnum):
    """RUNNING and CANCELLING change to one of the others, which are final."""

    RUNNING = "RUNNING"
    CANCELLING = "CANCELLING"
    """It has seen a cancel request: an activity of it may stop early."""
    COMPLETED = "COMPLETED"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"


class Workflows(Protocol):
    """Workflows of any app, by their references.

    Every method refuses an instance id that is not an `InstanceId` by INVALID_ARGUMENT, and raises UNAVAILABLE, with
    unknown outcome, when the sidecar or the host cannot be reached; each is safe to repeat.
    """

    async def start(self, workflow: WorkflowRef[I, Any], instance_id: str, value: I) -> None:
        """Start a workflow under a business id.

        A failed instance starts again. Any other is left unchanged, for as long as its history is kept.

        Raises:
            RpcError: INVALID_ARGUMENT for an input of another type, PAYLOAD_TOO_LARGE.
        """
        ...

    async def raise_event(
        self,
        workflow: WorkflowRef[Any, Any],
        instance_id: str,
        event: EventRef[E],
        value: E,
        *,
        event_id: str,
    ) -> None:
        """Raise an event to a running workflow, which keeps it until it waits for it. It takes an id once.

        Raises:
            RpcError: INVALID_ARGUMENT for an event that the workflow does not declare or a value of another type,
                PAYLOAD_TOO_LARGE, NOT_FOUND, FAILED_PRECONDITION when the instance has ended, perhaps by this event.
        """
        ...

    async def cancel(self, workflow: WorkflowRef[Any, Any], instance_id: str) -> None:
        """Ask a workflow to end: its current or next wait raises `WorkflowCancelled`, and so do its children's.

        Does nothing if it has ended. It is ended by force after its `cancel_grace`.

        Raises:
            RpcError: NOT_FOUND, FAILED_PRECONDITION for a workflow that is not cancellable.
        """
        ...

    async def status(self, workflow: WorkflowRef[Any, Any], instance_id: str) -> WorkflowStatus:
        """The status of an instance.

        Raises:
            RpcError: NOT_FOUND.
        """
        ...

    async def purge(self, instance_ids: Sequence[str]) -> None:
        """Remove the history of ended workflows and of their children; a missing instance is no error."""
        ...


AnyActivity = ActivityRef[Any, Any]
AnyEvent = EventRef[Any]
AnyWorkflow = WorkflowRef[Any, Any]
