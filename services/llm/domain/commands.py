"""Requests and results of the conversation actors."""

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
    """Creates a conversation, or returns the existing one with this id."""

    user_id: str
    conversation_id: str
    position: int = 0
    request: CreateConversationRequest


class AppendMessageCommand(BaseModel):
    """Appends a message. `repeatable`: the client sent an idempotency key, so the id may be stored already."""

    message_id: str
    repeatable: bool
    request: AppendMessageRequest


class BeginTurnCommand(BaseModel):
    """Admits a turn, or returns the existing one with this id and request.

    `repeatable`: the client sent an idempotency key, so the turn may exist already. `key_id`: the API key to charge.
    """

    turn_id: str
    key_id: str | None = None
    repeatable: bool
    model: str
    request: SendMessageRequest


class PromptMessage(BaseModel):
    role: Role
    text: str


class TurnContext(BaseModel):
    """Everything an attempt needs: the turn, its fencing epoch and the model's input."""

    turn: Turn
    epoch: int
    key_id: str | None = None
    deadline: Timestamp
    options: GenerationOptions = GenerationOptions()
    messages: list[PromptMessage] = Field(default_factory=list[PromptMessage])


class BegunTurn(BaseModel):
    """An admitted turn; `context` is present if this call has set it running."""

    turn: Turn
    context: TurnContext | None = None


class Answer(BaseModel):
    """Result of a model call; `text` is what readers were shown."""

    status: TurnStatus
    text: str = ""
    finish_reason: str | None = None
    asked: bool = False
    """Whether the provider accepted the request, and so bills it however it ended."""
    usage: Usage | None = None
    error: ErrorStatus | None = None
    cancel_acknowledged_at: Timestamp | None = None
    upstream_closed_at: Timestamp | None = None
    tokens_after_cancel: int = 0


class CompleteTurnCommand(Answer):
    """Ends a turn. The text shown is kept for every status."""

    turn_id: str
    epoch: int
    attempts: int


class CompletedTurn(BaseModel):
    """An ended turn, and the running turn after it."""

    turn: Turn
    next_turn_id: str | None = None


class TurnAnswer(BaseModel):
    """A turn, its answer, and the API key to charge."""

    turn: Turn
    key_id: str | None = None
    message: ChatMessage | None = None


class DeleteConversationCommand(BaseModel):
    """Deletes a conversation. With `position`, also an index entry whose conversation was never created."""

    user_id: str
    position: int | None = None


class DeletedConversation(BaseModel):
    """The turns of a deleted conversation, to be cancelled."""

    turn_ids: list[str]


class PageOfIdsRequest(BaseModel):
    """A page of a user's index after a position; 0 begins at the first in `order`."""

    after: int = 0
    limit: int
    order: SortOrder = SortOrder.DESCENDING


class IndexEntry(BaseModel):
    """A conversation's position in its owner's index."""

    position: int
    conversation_id: str


class BegunCreation(BaseModel):
    """A begun creation; `conversation` is None if its id was used before."""

    position: int
    conversation: Conversation | None = None


class PageOfIds(BaseModel):
    """Index entries in order; `more`: others follow."""

    entries: list[IndexEntry]
    more: bool
