"""What the conversation actors are asked, and what they answer."""

from pydantic import BaseModel, Field

from services.contracts.llm.conversations import (
    AppendMessageRequest,
    ChatMessage,
    Conversation,
    CreateConversationRequest,
    Role,
    SendMessageRequest,
)
from services.contracts.llm.turns import GenerationOptions, Turn, TurnStatus, Usage
from services.contracts.paging import SortOrder
from services.kit.contract import Timestamp
from services.kit.errors import ErrorStatus


class CreateConversationCommand(BaseModel):
    """Create this conversation for its owner; one that exists with the same id is answered as it is."""

    user_id: str
    conversation_id: str
    position: int = 0
    request: CreateConversationRequest


class AppendMessageCommand(BaseModel):
    """Append a message; `repeatable` when the id is derived from a key and may have been stored before."""

    message_id: str
    repeatable: bool
    request: AppendMessageRequest


class BeginTurnCommand(BaseModel):
    """Admit a turn; one that exists with the same id and the same request is answered as it is.

    `repeatable` when the id is derived from a key and may have been admitted before. `key_id` names the API key
    that pays for it.
    """

    turn_id: str
    key_id: str | None = None
    repeatable: bool
    model: str
    request: SendMessageRequest


class PromptMessage(BaseModel):
    """One message of the context that the model sees."""

    role: Role
    text: str


class TurnContext(BaseModel):
    """What a segment needs to answer: the turn, its fencing epoch, and the context for the model."""

    turn: Turn
    epoch: int
    key_id: str | None = None
    deadline: Timestamp
    options: GenerationOptions = GenerationOptions()
    messages: list[PromptMessage] = Field(default_factory=list[PromptMessage])


class BegunTurn(BaseModel):
    """An admitted turn; one that runs from now on comes with its context, a repeated one without."""

    turn: Turn
    context: TurnContext | None = None


class Answer(BaseModel):
    """What came of asking the model: the text that was shown, and how it ended."""

    status: TurnStatus
    text: str = ""
    finish_reason: str | None = None
    asked: bool = False
    """Whether the model began to answer, so that the provider bills it however it ended."""
    usage: Usage | None = None
    error: ErrorStatus | None = None
    cancel_acknowledged_at: Timestamp | None = None
    upstream_closed_at: Timestamp | None = None
    tokens_after_cancel: int = 0


class CompleteTurnCommand(Answer):
    """End a turn; refused (ABORTED) under a stale epoch. The text that the user saw is kept, whatever the status."""

    turn_id: str
    epoch: int
    attempts: int


class CompletedTurn(BaseModel):
    """An ended turn, and the queued one that began in its place."""

    turn: Turn
    next_turn_id: str | None = None


class TurnAnswer(BaseModel):
    """A turn with the message that answers it, where there is one, and the API key that pays for it."""

    turn: Turn
    key_id: str | None = None
    message: ChatMessage | None = None


class DeleteConversationCommand(BaseModel):
    """Delete a conversation; repeatable.

    Erasure names the `position` that it found in the user's index: an entry goes even if nothing is behind it.
    """

    user_id: str
    position: int | None = None


class DeletedConversation(BaseModel):
    """A conversation that is no more, and the turns that must stop."""

    turn_ids: list[str]


class PageOfIdsRequest(BaseModel):
    """A page of a user's conversation ids from a position on, exclusive; 0 begins at the end that `order` names."""

    after: int = 0
    limit: int
    order: SortOrder = SortOrder.DESCENDING


class IndexEntry(BaseModel):
    """A conversation's place in its owner's list."""

    position: int
    conversation_id: str


class BegunCreation(BaseModel):
    """A creation that its manager has entered: the conversation, or None where its id was used before."""

    position: int
    conversation: Conversation | None = None


class PageOfIds(BaseModel):
    """Ids in order; `more` says whether the list goes on."""

    entries: list[IndexEntry]
    more: bool
