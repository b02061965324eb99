"""Turns: messages, event stream, workflow and activity."""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Final

from pydantic import BaseModel, Field

from services.kit.contract import Int64, Message, Timestamp
from services.kit.errors import ErrorStatus
from services.kit.references import ActivityRef, WorkflowRef

TurnId = Annotated[
    str, Field(pattern=r"^turn_[0-9a-z]{26,32}$", examples=["turn_01k9x2m4q7r8s5t6v0w1y2z3b5"])
]

TURN_STREAM: Final = "turn"
"""Kind of a turn's stream in the event log; the stream id is the turn id."""
MAX_TURN_TIME: Final = timedelta(minutes=5)
"""Maximum duration of a running turn."""


class TurnStatus(StrEnum):
    """QUEUED → RUNNING → COMPLETED, FAILED or CANCELLED; the last three are final."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_terminal(self) -> bool:
        """Whether the status is final."""
        return self in (TurnStatus.COMPLETED, TurnStatus.FAILED, TurnStatus.CANCELLED)


class Usage(Message):
    """Tokens and `cost` (US dollars, if the provider reports it) of all attempts of a turn.

    `estimated`: an attempt was cut off before the provider reported its usage, so a tokenizer counted it.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cost: float | None = None
    estimated: bool = False


class CancelReceipt(Message):
    """Times of a cancel: requested, noticed by the worker, and connection to the provider closed."""

    requested_at: Timestamp
    acknowledged_at: Timestamp | None = None
    upstream_closed_at: Timestamp | None = None
    tokens_after_cancel: int = 0


class Turn(Message):
    """A user message and its answer. `userMessageSeq` is absent while the turn is queued."""

    turn_id: str
    conversation_id: str
    status: TurnStatus
    model: str
    user_message_seq: Int64 | None = None
    assistant_message_seq: Int64 | None = None
    attempts: int = 0
    usage: Usage | None = None
    finish_reason: str | None = None
    error: ErrorStatus | None = None
    cancel: CancelReceipt | None = None
    created_at: Timestamp
    ended_at: Timestamp | None = None


class GenerationOptions(Message):
    """Sampling options of an answer."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=32_768)] | None = None

    def with_defaults(self, defaults: "GenerationOptions") -> "GenerationOptions":
        """These options, with absent ones taken from `defaults`."""
        present = self.model_dump(include=set(GenerationOptions.model_fields), exclude_none=True)
        return defaults.model_copy(update=present)


class TurnRef(BaseModel):
    """Identifies a turn and the user who requested it."""

    user_id: str
    conversation_id: str
    turn_id: str


class GenerationInput(TurnRef):
    """A turn to retry after `retry_after_seconds`. Ids only: workflow history stores every payload."""

    traceparent: str | None = None
    retry_after_seconds: float = 0.0


class RunTurnInput(TurnRef):
    """One attempt at a turn; the `last` one fails the turn instead of asking for a retry."""

    traceparent: str | None = None
    last: bool = False


class TurnOutcome(BaseModel):
    """How an attempt ended; without `status`, it asks for a retry after `retry_after_seconds`."""

    status: TurnStatus | None = None
    retry_after_seconds: float = 0.0


GENERATION_WORKFLOW: Final = WorkflowRef(
    "GenerationWorkflow", app_id="workflows", input=GenerationInput, output=TurnOutcome
)
RUN_TURN: Final = ActivityRef("RunTurn", app_id="llm", input=RunTurnInput, output=TurnOutcome)
