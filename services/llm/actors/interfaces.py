"""The interfaces of the conversation actors: who calls them knows no more of them."""

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
    """A user's conversations; the id is the user's."""

    async def begin_create(self, command: CreateConversationCommand) -> BegunCreation:
        """Create a conversation and enter it into the index; a reminder reconciles what is left half done."""
        ...

    async def finish_create(self, entry: IndexEntry) -> None:
        """The conversation's owner has access; nothing is left to reconcile."""
        ...

    async def list_ids(self, request: PageOfIdsRequest) -> PageOfIds:
        """A page of the index."""
        ...

    async def remove(self, entry: IndexEntry) -> None:
        """Take a deleted conversation out of the index."""
        ...

    async def forget_user(self) -> None:
        """Remove the index itself, once it is empty."""
        ...


class ConversationActorInterface(ActorInterface):
    """One conversation; the id is the conversation's. Who may call has been decided by the route."""

    async def create(self, command: CreateConversationCommand) -> Conversation:
        """Create it; repeatable."""
        ...

    async def read(self) -> Conversation:
        """Read it."""
        ...

    async def update(self, request: UpdateConversationRequest) -> Conversation:
        """Change it."""
        ...

    async def delete(self, command: DeleteConversationCommand) -> DeletedConversation:
        """Mark it deleted; a reminder removes what it leaves behind."""
        ...

    async def append_message(self, command: AppendMessageCommand) -> ChatMessage:
        """Append a message without a turn."""
        ...

    async def list_messages(self, request: ListMessagesRequest) -> ListMessagesResponse:
        """A page of messages."""
        ...

    async def begin_turn(self, command: BeginTurnCommand) -> BegunTurn:
        """Append the user message and admit the turn."""
        ...

    async def turn_context(self, ref: TurnRef) -> TurnContext:
        """What the model shall see."""
        ...

    async def complete_turn(self, command: CompleteTurnCommand) -> CompletedTurn:
        """End the turn and begin the next of the queue; repeatable."""
        ...

    async def get_turn(self, ref: TurnRef) -> TurnAnswer:
        """Read a turn with its answer."""
        ...

    async def cancel_turn(self, ref: TurnRef) -> Turn:
        """Ask a turn to stop; a queued one ends at once."""
        ...
