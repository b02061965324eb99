"""What the apps know of a turn's work: actor interfaces, the workflow, and the activity that it calls."""

from datetime import timedelta
from typing import Final

from pydantic import BaseModel, Field

from services.contracts.conversations import (
    AppendMessageRequest,
    ChatMessage,
    Conversation,
    CreateConversationRequest,
    ListMessagesRequest,
    ListMessagesResponse,
    Role,
    SendMessageRequest,
    SortOrder,
    Turn,
    TurnStatus,
    UpdateConversationRequest,
    Usage,
)
from services.kit.contract import Timestamp
from services.kit.dapr.actors import ActorInterface, actormethod
from services.kit.dapr.workflows import ActivityRef, WorkflowRef
from services.kit.errors import ErrorStatus

TURN_STREAM: Final = "turn"
"""The kind of a turn's stream in the event log; the stream's id is the turn's."""
MAX_TURN_TIME: Final = timedelta(minutes=5)
"""The bound on a turn's wall time, from its begin."""


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


class TurnRef(BaseModel):
    """Names a turn, and the user who asked for it."""

    user_id: str
    conversation_id: str
    turn_id: str


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
    temperature: float | None = None
    max_output_tokens: int | None = None
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


class ConversationManagerActorInterface(ActorInterface):
    """A user's conversations; the id is the user's."""

    @actormethod(name="BeginCreate")
    async def begin_create(self, command: CreateConversationCommand) -> BegunCreation:
        """Create a conversation and enter it into the index; a reminder reconciles what is left half done."""
        ...

    @actormethod(name="FinishCreate")
    async def finish_create(self, entry: IndexEntry) -> None:
        """The conversation's owner has access; nothing is left to reconcile."""
        ...

    @actormethod(name="ListIds")
    async def list_ids(self, request: PageOfIdsRequest) -> PageOfIds:
        """A page of the index."""
        ...

    @actormethod(name="Remove")
    async def remove(self, entry: IndexEntry) -> None:
        """Take a deleted conversation out of the index."""
        ...

    @actormethod(name="Forget")
    async def forget_user(self) -> None:
        """Remove the index itself, once it is empty."""
        ...


class ConversationActorInterface(ActorInterface):
    """One conversation; the id is the conversation's. Who may call has been decided by the route."""

    @actormethod(name="Create")
    async def create(self, command: CreateConversationCommand) -> Conversation:
        """Create it; repeatable."""
        ...

    @actormethod(name="Read")
    async def read(self) -> Conversation:
        """Read it."""
        ...

    @actormethod(name="Update")
    async def update(self, request: UpdateConversationRequest) -> Conversation:
        """Change it."""
        ...

    @actormethod(name="Delete")
    async def delete(self, command: DeleteConversationCommand) -> DeletedConversation:
        """Mark it deleted; a reminder removes what it leaves behind."""
        ...

    @actormethod(name="AppendMessage")
    async def append_message(self, command: AppendMessageCommand) -> ChatMessage:
        """Append a message without a turn."""
        ...

    @actormethod(name="ListMessages")
    async def list_messages(self, request: ListMessagesRequest) -> ListMessagesResponse:
        """A page of messages."""
        ...

    @actormethod(name="BeginTurn")
    async def begin_turn(self, command: BeginTurnCommand) -> BegunTurn:
        """Append the user message and admit the turn."""
        ...

    @actormethod(name="TurnContext")
    async def turn_context(self, ref: TurnRef) -> TurnContext:
        """What the model shall see."""
        ...

    @actormethod(name="CompleteTurn")
    async def complete_turn(self, command: CompleteTurnCommand) -> CompletedTurn:
        """End the turn and begin the next of the queue; repeatable."""
        ...

    @actormethod(name="GetTurn")
    async def get_turn(self, ref: TurnRef) -> TurnAnswer:
        """Read a turn with its answer."""
        ...

    @actormethod(name="CancelTurn")
    async def cancel_turn(self, ref: TurnRef) -> Turn:
        """Ask a turn to stop; a queued one ends at once."""
        ...


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
