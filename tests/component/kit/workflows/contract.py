"""The workflows, events and activities of the test app."""

from datetime import timedelta
from typing import Final

from pydantic import BaseModel

from services.kit.references import ActivityRef, EventRef, WorkflowRef

HOST: Final = "workflows"  # the state store is scoped by name
CALLER: Final = "llm"


class Plan(BaseModel):
    """What to do: a kind of `plays.py`, the time limit of its waits, texts so far, and how many to collect."""

    kind: str
    seconds: float = 300
    texts: list[str] = []
    wanted: int = 0


class Text(BaseModel):
    """A text."""

    text: str


class Texts(BaseModel):
    """Texts in order."""

    texts: list[str]


class Step(BaseModel):
    """A step of an instance."""

    instance_id: str
    name: str


ANSWER: Final = EventRef("Answer", Text)
PLAY: Final = WorkflowRef(
    "Play",
    HOST,
    input=Plan,
    output=Texts,
    events=(ANSWER,),
    cancellable=True,
    cancel_grace=timedelta(seconds=3),
)
FIXED: Final = WorkflowRef("Fixed", HOST, input=Plan, output=Texts)
MARK: Final = ActivityRef("Mark", CALLER, Step, Text)
"""Counts the calls of a step."""
GATE: Final = ActivityRef("Gate", CALLER, Step, Text)
"""Marks the step when its gate is open."""
WATCH: Final = ActivityRef("Watch", CALLER, Step, Text)
"""Marks the step once its workflow is being cancelled."""
BAD: Final = ActivityRef("Bad", CALLER, Step, Text)
"""Fails: its result is too large."""
