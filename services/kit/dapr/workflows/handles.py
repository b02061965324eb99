"""What a workflow waits for: activities, timers, external events, child workflows."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Generic, TypeVar

import pydantic
import structlog
from dapr.ext.workflow._durabletask.task import CompletableTask
from typing_extensions import override

from services.kit.dapr.workflows.errors import ActivityFailed, ChildFailed
from services.kit.references import E, EventRef, O

T = TypeVar("T")
CANCEL_EVENT: Final = "yocaso.cancel"
MAX_SEEN_EVENTS: Final = 128
"""Ids of taken events that a workflow remembers across `continue_as_new`."""

log = structlog.get_logger()


class TimedOut(Enum):
    """The outcome of a wait whose time limit passed."""

    TIMED_OUT = "TIMED_OUT"


@dataclass(frozen=True, slots=True)
class Completed(Generic[T]):
    """An outcome with a result."""

    value: T


@dataclass(frozen=True, slots=True)
class Failed:
    """An outcome without one."""

    error: ActivityFailed | ChildFailed


class Handle(ABC, Generic[T]):
    """Something that was begun and can be waited for, also together with others."""

    @property
    @abstractmethod
    def task(self) -> Any:
        """The SDK's task that completes next."""

    @abstractmethod
    def done(self) -> bool:
        """Whether the result or the failure is there."""

    @abstractmethod
    def result(self) -> T:
        """The result of a handle that is done.

        Raises:
            ActivityFailed, ChildFailed: it failed.
            RuntimeError: it is not done.
        """

    def outcome(self) -> "Completed[T] | Failed":
        """The result, or the failure as a value."""
        try:
            return Completed(self.result())
        except (ActivityFailed, ChildFailed) as error:
            return Failed(error)


class TaskHandle(Handle[T]):
    """An activity or a timer."""

    def __init__(self, task: Any, read: Callable[[Any], T]) -> None:
        self._task = task
        self._read = read

    @property
    @override
    def task(self) -> Any:
        return self._task

    @override
    def done(self) -> bool:
        return bool(self._task.is_complete)

    @override
    def result(self) -> T:
        if not self.done():
            raise RuntimeError("the handle is not done: wait for it")
        return self._read(self._task.get_result())


class ChildHandle(TaskHandle[O]):
    """A child workflow, with its instance id."""

    def __init__(self, task: Any, output: type[O], instance_id: str) -> None:
        super().__init__(task, output.model_validate)
        self.instance_id = instance_id

    @override
    def result(self) -> O:
        try:
            return super().result()
        except ActivityFailed as failure:
            raise ChildFailed(self.instance_id, failure) from None


class EventQueue:
    """The external events of one run, in order of arrival per name, each id once.

    It uses the SDK's queues directly. The SDK's own wait schedules a reminder for every wait, of which daprd 1.18.0
    deletes the wrong one, and an abandoned wait would take the next event.
    """

    def __init__(self, context: Any, seen: list[str]) -> None:
        self._context = context
        self._received: dict[str, list[Any]] = context._received_events
        self._waiting: dict[str, list[Any]] = context._pending_events
        self._seen = dict.fromkeys(seen)

    def warn_invalid(self, name: str) -> None:
        """Log an event that does not parse, once: replays do not repeat it."""
        if not self._context.is_replaying:
            log.warning("workflows.invalid_event", name=name, instance_id=self._context.instance_id)

    def seen(self) -> list[str]:
        """The events taken last, as `<name>/<id>`."""
        return list(self._seen)[-MAX_SEEN_EVENTS:]

    def listen(self, name: str) -> Any:
        """A task that completes with the next event of a name."""
        task = CompletableTask[Any]()
        key = name.casefold()
        if received := self._received.get(key):
            task.complete(received.pop(0))
        else:
            self._waiting.setdefault(key, []).append(task)
        return task

    def give_back(self, name: str, task: Any) -> None:
        """Stop listening; an event that came is the next one again."""
        key = name.casefold()
        if task.is_complete:
            self._received.setdefault(key, []).insert(0, task.get_result())
        elif task in (waiting := self._waiting.get(key, [])):
            waiting.remove(task)

    def is_new(self, name: str, event_id: str) -> bool:
        return f"{name}/{event_id}" not in self._seen

    def take(self, name: str, event_id: str) -> None:
        """Ignore later events of this id."""
        self._seen[f"{name}/{event_id}"] = None


class EventHandle(Handle[E]):
    """The next new event of a reference."""

    def __init__(self, queue: EventQueue, event: EventRef[E]) -> None:
        self._queue = queue
        self._event = event
        self._task = queue.listen(event.name)
        self._found: tuple[str, E] | None = None
        self._is_taken = False
        self._is_abandoned = False

    @property
    @override
    def task(self) -> Any:
        return self._task

    @override
    def done(self) -> bool:
        if self._is_abandoned:
            raise RuntimeError(f"a later wait for {self._event.name} replaced this one")
        while self._found is None and self._task.is_complete:
            self._found = self._parse(self._task.get_result())
            if self._found is None:
                self._task = self._queue.listen(self._event.name)
        return self._found is not None

    @override
    def result(self) -> E:
        if not self.done() or self._found is None:
            raise RuntimeError("the handle is not done: wait for it")
        event_id, value = self._found
        self._is_taken = True
        self._queue.take(self._event.name, event_id)
        return value

    def abandon(self) -> None:
        """Leave the event to the next wait, unless its result was read."""
        if not self._is_taken:
            self._is_abandoned = True
            self._queue.give_back(self._event.name, self._task)

    def _parse(self, raw: Any) -> tuple[str, E] | None:
        """The event, or None for a repeated one and for one that did not come by `raise_event`."""
        try:
            event_id, value = str(raw["id"]), self._event.message.model_validate(raw["value"])
        except (pydantic.ValidationError, KeyError, TypeError):
            self._queue.warn_invalid(self._event.name)
            return None
        return (event_id, value) if self._queue.is_new(self._event.name, event_id) else None


def event_payload(event_id: str, value: Any) -> dict[str, Any]:
    """An event as the history stores it."""
    return {"id": event_id, "value": value}
