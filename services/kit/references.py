"""Typed references to activities and workflows, which contracts declare and other apps call by."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel

I = TypeVar("I", bound=BaseModel)  # noqa: E741 - input
O = TypeVar("O", bound=BaseModel)  # noqa: E741 - output


@dataclass(frozen=True, slots=True)
class ActivityRef(Generic[I, O]):
    """An activity: its name, the app that hosts it, and its messages."""

    name: str
    app_id: str
    input: type[I]
    output: type[O]


@dataclass(frozen=True, slots=True)
class WorkflowRef(Generic[I]):
    """A workflow: its name, the app that hosts it, and its input."""

    name: str
    app_id: str
    input: type[I]


class Workflows(Protocol):
    """Starts workflows of any app."""

    async def start(self, workflow: WorkflowRef[I], instance_id: str, value: I) -> None:
        """Start a workflow under a business id; an existing instance is left unchanged."""
        ...

    async def purge(self, instance_ids: Sequence[str]) -> None:
        """Remove the history of ended workflows; a missing instance is no error."""
        ...


AnyActivity = ActivityRef[Any, Any]
AnyWorkflow = WorkflowRef[Any]
