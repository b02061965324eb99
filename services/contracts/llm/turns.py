"""Turns: a user message and its answer; their stream in the event log, their workflow and its activity."""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Final

from pydantic import BaseModel, Field, StringConstraints

from services.kit.contract import Int64, Message, Timestamp
from services.kit.errors import ErrorStatus
from services.kit.references import ActivityRef, WorkflowRef

TurnId = Annotated[str, StringConstraints(pattern=r"^turn_[0-9a-z]{26,32}$")]

TURN_STREAM: Final = "turn"
"""The kind of a turn's stream in the event log; the stream's id is the turn's."""
MAX_TURN_TIME: Final = timedelta(minutes=5)
"""The bound on a turn's wall time, from its begin."""


class TurnStatus(StrEnum):
    """A turn goes QUEUED → RUNNING → one of the last three, and stays there."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_terminal(self) -> bool:
        """Whether the status never changes again."""
        return self in (TurnStatus.COMPLETED, TurnStatus.FAILED, TurnStatus.CANCELLED)


class Usage(Message):
    """Tokens of all attempts, as the provider counted them; `cost` is in US dollars where the provider says it.

    `estimated`: some of it was counted by a tokenizer, because an attempt was cut off before the provider said it.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cost: float | None = None
    estimated: bool = False


class CancelReceipt(Message):
    """What a cancel did: when it was asked, seen by the worker, and when the upstream socket closed."""

    requested_at: Timestamp
    acknowledged_at: Timestamp | None = None
    upstream_closed_at: Timestamp | None = None
    tokens_after_cancel: int = 0


class Turn(Message):
    """A user message and its answer. A queued turn gets its `userMessageSeq` when it begins."""

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
    """How the model shall answer. Bounds: 0 ≤ `temperature` ≤ 2, 1 ≤ `maxOutputTokens` ≤ 32,768."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=32_768)] | None = None

    def over(self, defaults: "GenerationOptions") -> "GenerationOptions":
        """These, and the defaults where one is absent."""
        named = {name: getattr(self, name) for name in GenerationOptions.model_fields}
        return defaults.model_copy(update={k: v for k, v in named.items() if v is not None})


class TurnRef(BaseModel):
    """Names a turn, and the user who asked for it."""

    user_id: str
    conversation_id: str
    turn_id: str


class GenerationInput(TurnRef):
    """A turn to answer, after a wait. References only: history stores every payload."""

    traceparent: str | None = None
    retry_after_seconds: float = 0.0


class RunTurnInput(TurnRef):
    """One segment of a turn; the `last` one ends the turn rather than ask for another."""

    traceparent: str | None = None
    last: bool = False


class TurnOutcome(BaseModel):
    """How a segment ended: `status` absent means that the model asked to come back after `retry_after_seconds`."""

    status: TurnStatus | None = None
    retry_after_seconds: float = 0.0


GENERATION_WORKFLOW: Final = WorkflowRef(
    "GenerationWorkflow", app_id="workflows", input=GenerationInput
)
RUN_TURN: Final = ActivityRef("RunTurn", app_id="llm", input=RunTurnInput, output=TurnOutcome)
