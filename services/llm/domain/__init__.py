"""State and rules of conversations and turns."""

from services.llm.domain.conversations import (
    CONTEXT_CHARS,
    CONTEXT_MESSAGES,
    CONVERSATION_TYPE,
    MAX_QUEUE,
    OVERDUE_GRACE,
    RECONCILE_AFTER,
    ConversationIndex,
    ConversationState,
    PendingCreation,
    TurnRecord,
    context_window,
    conversation_object,
    owed_charge,
    request_cancel,
    require_same_request,
    terminal_event,
)
from services.llm.domain.usage import delta_text, estimate_usage, sum_usage

__all__ = [
    "CONTEXT_CHARS",
    "CONTEXT_MESSAGES",
    "CONVERSATION_TYPE",
    "MAX_QUEUE",
    "OVERDUE_GRACE",
    "RECONCILE_AFTER",
    "ConversationIndex",
    "ConversationState",
    "PendingCreation",
    "TurnRecord",
    "context_window",
    "conversation_object",
    "delta_text",
    "estimate_usage",
    "owed_charge",
    "request_cancel",
    "require_same_request",
    "sum_usage",
    "terminal_event",
]
