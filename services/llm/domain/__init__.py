"""Rules of conversations and turns."""

from services.llm.domain.conversations import (
    CONTEXT_CHARS,
    CONTEXT_MESSAGES,
    CONVERSATION,
    MAX_QUEUE,
    OVERDUE_GRACE,
    RECONCILED_AFTER,
    ConversationIndex,
    ConversationState,
    PendingCreation,
    TurnRecord,
    context_window,
    conversation_object,
    ending,
    owed_charge,
    request_cancel,
    require_same,
)
from services.llm.domain.usage import add_usage, estimated_usage, shown_text

__all__ = [
    "CONTEXT_CHARS",
    "CONTEXT_MESSAGES",
    "CONVERSATION",
    "MAX_QUEUE",
    "OVERDUE_GRACE",
    "RECONCILED_AFTER",
    "ConversationIndex",
    "ConversationState",
    "PendingCreation",
    "TurnRecord",
    "add_usage",
    "context_window",
    "conversation_object",
    "ending",
    "estimated_usage",
    "owed_charge",
    "request_cancel",
    "require_same",
    "shown_text",
]
