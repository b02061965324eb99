"""Events of turns and runs."""

from enum import StrEnum
from typing import Any

from typing_extensions import override

from services.kit.contract import StreamEvent, Timestamp


class EventType(StrEnum):
    """Kinds of event. Exactly one of the last three ends a stream."""

    RUN_STARTED = "run.started"
    TEXT_DELTA = "text.delta"
    REASONING_DELTA = "reasoning.delta"
    TOOL_REQUESTED = "tool.requested"
    TOOL_APPROVAL_REQUIRED = "tool.approval_required"
    TOOL_COMPLETED = "tool.completed"
    TASK_STARTED = "task.started"
    TASK_COMPLETED = "task.completed"
    TASK_FAILED = "task.failed"
    USAGE = "usage"
    CHECKPOINT = "checkpoint"
    ATTEMPT_RESTARTED = "attempt.restarted"
    CUSTOM = "custom"
    RUN_COMPLETED = "run.completed"
    RUN_FAILED = "run.failed"
    RUN_CANCELLED = "run.cancelled"

    @property
    def is_terminal(self) -> bool:
        """Whether the event ends its stream."""
        return self in (EventType.RUN_COMPLETED, EventType.RUN_FAILED, EventType.RUN_CANCELLED)


class Event(StreamEvent):
    """One entry of a stream. `seq` counts from 1 without a gap; `data` depends on `type`:

    `run.started` {turnId, conversationId, model}; `text.delta` and `reasoning.delta` {text}; `attempt.restarted`
    {fromSeq}: discard events from that seq on; `usage`: a `Usage`; `run.completed` {finishReason, messageSeq?};
    `run.failed` {error, messageSeq?}; `run.cancelled` {messageSeq?}.
    """

    type: EventType
    attempt: int
    data: dict[str, Any]
    created_at: Timestamp

    @property
    @override
    def is_terminal(self) -> bool:
        """Whether the event ends its stream."""
        return self.type.is_terminal
