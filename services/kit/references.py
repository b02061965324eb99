"""What contracts declare and another app may call by: activities and workflows, with their messages."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel

I = TypeVar("I", bound=BaseModel)  # noqa: E741 - input
O = TypeVar("O", bound=BaseModel)  # noqa: E741 - output


@dataclass(frozen=True, slots=True)
class ActivityRef(Generic[I, O]):
    """An activity: the app that hosts it, and its messages."""

    name: str
    app_id: str
    input: type[I]
    output: type[O]


@dataclass(frozen=True, slots=True)
class WorkflowRef(Generic[I]):
    """A workflow: the app that hosts it, and its input."""

    name: str
    app_id: str
    input: type[I]


class Workflows(Protocol):
    """Starts workflows, whichever app hosts them."""

    async def start(self, workflow: WorkflowRef[I], instance_id: str, value: I) -> None:
        """Start a workflow under a business id; one that exists already is left as it is."""
        ...

    async def purge(self, instance_ids: Sequence[str]) -> None:
        """Remove the history of workflows that have ended; one that is not there is no error."""
        ...


AnyActivity = ActivityRef[Any, Any]
AnyWorkflow = WorkflowRef[Any]
