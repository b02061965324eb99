"""Interfaces of the conversation actors."""

from services.contracts.llm.conversations import (
    ChatMessage,
    Conversation,
    ListMessagesRequest,
    ListMessagesResponse,
    UpdateConversationRequest,
)
from services.contracts.llm.turns import Turn, TurnRef
from services.kit.dapr.domain_actor import ActorInterface
from services.llm.domain.commands import (
    AppendMessageCommand,
    BeginTurnCommand,
    BegunCreation,
    BegunTurn,
    CompletedTurn,
    CompleteTurnCommand,
    CreateConversationCommand,
    DeleteConversationCommand,
    DeletedConversation,
    IndexEntry,
    PageOfIds,
    PageOfIdsRequest,
    TurnAnswer,
    TurnContext,
)


class ConversationManagerActorInterface(ActorInterface):
    """The index of a user's conversations; the actor id is the user id."""

    async def begin_create(self, command: CreateConversationCommand) -> BegunCreation:
        """Create a conversation and its index entry in one commit; a reminder reconciles it without `finish_create`."""
        ...

    async def finish_create(self, entry: IndexEntry) -> None:
        """Note that the owner's tuple is written, so there is nothing to reconcile."""
        ...

    async def list_ids(self, request: PageOfIdsRequest) -> PageOfIds: ...

    async def remove(self, entry: IndexEntry) -> None:
        """Remove a deleted conversation's entry; repeatable. ABORTED while its creation is unfinished."""
        ...

    async def forget_user(self) -> None:
        """Remove the head of an empty index; FAILED_PRECONDITION while it has entries."""
        ...


class ConversationActorInterface(ActorInterface):
    """One conversation; the actor id is the conversation id. Callers are authorized by the route."""

    async def create(self, command: CreateConversationCommand) -> Conversation:
        """Create the conversation if it does not exist; NOT_FOUND for another owner's, or once deleted."""
        ...

    async def read(self) -> Conversation: ...

    async def update(self, request: UpdateConversationRequest) -> Conversation: ...

    async def delete(self, command: DeleteConversationCommand) -> DeletedConversation:
        """Mark the conversation deleted; repeatable. A reminder purges its data in the background."""
        ...

    async def append_message(self, command: AppendMessageCommand) -> ChatMessage:
        """Append a message without a turn."""
        ...

    async def list_messages(self, request: ListMessagesRequest) -> ListMessagesResponse: ...

    async def begin_turn(self, command: BeginTurnCommand) -> BegunTurn:
        """Append the user message and admit the turn; repeatable."""
        ...

    async def turn_context(self, ref: TurnRef) -> TurnContext:
        """Build the model's context: the system prompt and the newest messages up to the turn's own."""
        ...

    async def complete_turn(self, command: CompleteTurnCommand) -> CompletedTurn:
        """End the turn and begin the next queued one in one commit; repeatable. ABORTED for a stale epoch."""
        ...

    async def get_turn(self, ref: TurnRef) -> TurnAnswer: ...

    async def cancel_turn(self, ref: TurnRef) -> Turn:
        """Record the cancel request of a running turn; cancel a queued one at once."""
        ...
