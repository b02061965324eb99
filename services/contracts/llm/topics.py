"""Topics of `llm`."""

from typing import Final

from services.contracts.llm.turns import TurnStatus, Usage
from services.kit.contract import Int64, Message, Timestamp
from services.kit.topics import Topic


class TurnCompleted(Message):
    """A turn that ended, with its final status; without texts, which are read by `ListMessages`.

    `userId` owns the conversation. `assistantMessageSeq` is absent if the turn ended without an answer.
    """

    turn_id: str
    conversation_id: str
    user_id: str
    status: TurnStatus
    model: str
    user_message_seq: Int64 | None = None
    assistant_message_seq: Int64 | None = None
    usage: Usage | None = None
    ended_at: Timestamp


class ConversationDeleted(Message):
    """A conversation that its owner `userId` deleted; its messages, turns and streams are being removed."""

    conversation_id: str
    user_id: str
    deleted_at: Timestamp


TURN_COMPLETED: Final = Topic(
    "llm.turn.completed.v1", TurnCompleted, "A turn ended: completed, failed or cancelled."
)
CONVERSATION_DELETED: Final = Topic(
    "llm.conversation.deleted.v1", ConversationDeleted, "A conversation was deleted."
)
TOPICS: Final = (TURN_COMPLETED, CONVERSATION_DELETED)
