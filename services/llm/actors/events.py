"""Events that conversations publish."""

from services.contracts.llm.topics import (
    CONVERSATION_DELETED,
    TURN_COMPLETED,
    ConversationDeleted,
    TurnCompleted,
)
from services.contracts.llm.turns import Turn
from services.kit.dapr.pubsub.outbox import OutboxEvent, outbox_event
from services.llm.domain import ConversationState


def turn_completed(state: ConversationState, turn: Turn) -> OutboxEvent:
    """Announces an ended turn."""
    event = TurnCompleted(
        turn_id=turn.turn_id,
        conversation_id=turn.conversation_id,
        user_id=state.owner,
        status=turn.status,
        model=turn.model,
        user_message_seq=turn.user_message_seq,
        assistant_message_seq=turn.assistant_message_seq,
        usage=turn.usage,
        ended_at=turn.ended_at or state.updated_at,
    )
    return outbox_event(TURN_COMPLETED, event, key=turn.conversation_id)


def conversation_deleted(state: ConversationState) -> OutboxEvent:
    """Announces a deleted conversation."""
    event = ConversationDeleted(
        conversation_id=state.conversation_id, user_id=state.owner, deleted_at=state.updated_at
    )
    return outbox_event(CONVERSATION_DELETED, event, key=state.conversation_id)
