"""Use cases of conversations, and user erasure."""

from typing import Final

from services.contracts.erasure import ErasedUser, EraseUserInput
from services.contracts.llm.conversations import (
    AppendMessageRequest,
    AppendMessageResponse,
    Conversation,
    CreateConversationRequest,
    DeleteConversationRequest,
    GetConversationRequest,
    ListConversationsRequest,
    ListConversationsResponse,
    ListMessagesRequest,
    ListMessagesResponse,
    UpdateConversationRequest,
)
from services.contracts.paging import SortOrder
from services.kit.access.identity import CallerIdentity
from services.kit.dapr.actors import Actors
from services.kit.dapr.state_rows import StateStore
from services.kit.errors import ErrorCode, RpcError
from services.kit.eventlog import EventLog
from services.kit.failpoints import failpoint
from services.kit.http.cursors import decode_cursor, encode_cursor
from services.kit.http.idempotency import IdempotencyKey, IdempotencyRecords
from services.kit.references import Workflows
from services.llm.actors import (
    ConversationActor,
    ConversationActorInterface,
    ConversationManagerActorInterface,
)
from services.llm.domain import conversation_object
from services.llm.domain.commands import (
    AppendMessageCommand,
    CreateConversationCommand,
    DeleteConversationCommand,
    IndexEntry,
    PageOfIdsRequest,
)
from services.llm.ports import LanguageModel, Ownership

ERASURE_PAGE: Final = 100


class ConversationService:
    """Use cases of conversations and messages; callers are authorized by the routes."""

    def __init__(
        self,
        *,
        actors: Actors,
        state: StateStore,
        events: EventLog,
        model: LanguageModel,
        ownership: Ownership,
    ) -> None:
        self._actors = actors
        self._state = state
        self._events = events
        self._model = model
        self._ownership = ownership

    async def create(
        self, request: CreateConversationRequest, caller: CallerIdentity, key: IdempotencyKey
    ) -> Conversation:
        """Create the conversation and its index entry, then the owner's tuple; each step is repeatable.

        Raises:
            RpcError: MODEL_INVALID; NOT_FOUND for the key of a deleted conversation.
        """
        if request.model:
            self._model.require_allowed(request.model)
        conversation_id = f"conv_{key.derive('conversation')}"
        command = CreateConversationCommand(
            user_id=caller.user_id, conversation_id=conversation_id, request=request
        )
        manager = self._manager(caller.user_id)
        begun = await manager.begin_create(command)
        entry = IndexEntry(position=begun.position, conversation_id=conversation_id)
        conversation = begun.conversation
        if conversation is None:
            conversation = await self._create_again(command, entry)
        await failpoint("conversation.after_create")
        await self._ownership.own(caller.user_id, conversation_object(conversation_id))
        await manager.finish_create(entry)
        return conversation

    async def get(self, request: GetConversationRequest) -> Conversation:
        return await self._conversation(request.conversation_id).read()

    async def list_conversations(
        self, request: ListConversationsRequest, caller: CallerIdentity
    ) -> ListConversationsResponse:
        """Read a page of the caller's index, then the conversations' states without activating their actors."""
        scope = f"conversations/{caller.user_id}/{request.order}"
        after = decode_cursor(scope, request.cursor) if request.cursor else 0
        page = await self._manager(caller.user_id).list_ids(
            PageOfIdsRequest(after=after, limit=request.limit, order=request.order)
        )
        ids = [entry.conversation_id for entry in page.entries]
        states = await ConversationActor.read_states(self._state, ids)
        views = [
            state.view()
            for state in states
            if state and not state.deleted and state.owner == caller.user_id
        ]
        cursor = encode_cursor(scope, page.entries[-1].position) if page.more else None
        return ListConversationsResponse(conversations=views, next_cursor=cursor)

    async def update(self, request: UpdateConversationRequest) -> Conversation:
        if request.model:
            self._model.require_allowed(request.model)
        return await self._conversation(request.conversation_id).update(request)

    async def delete(self, request: DeleteConversationRequest, caller: CallerIdentity) -> None:
        """Mark it deleted and cancel its turns; its actor purges the data in the background."""
        command = DeleteConversationCommand(user_id=caller.user_id)
        deleted = await self._conversation(request.conversation_id).delete(command)
        for turn_id in deleted.turn_ids:
            await self._events.request_cancel(turn_id)

    async def was_deleted_for(self, conversation_id: str, user_id: str) -> bool:
        """Whether this user's conversation was deleted; read without activating its actor."""
        [state] = await ConversationActor.read_states(self._state, [conversation_id])
        return state is not None and state.was_deleted_for(user_id)

    async def list_messages(self, request: ListMessagesRequest) -> ListMessagesResponse:
        return await self._conversation(request.conversation_id).list_messages(request)

    async def append_message(
        self, request: AppendMessageRequest, key: IdempotencyKey
    ) -> AppendMessageResponse:
        command = AppendMessageCommand(
            message_id=f"msg_{key.derive('message')}", repeatable=key.explicit, request=request
        )
        message = await self._conversation(request.conversation_id).append_message(command)
        return AppendMessageResponse(message=message)

    async def _create_again(
        self, command: CreateConversationCommand, entry: IndexEntry
    ) -> Conversation:
        """Repeat a creation whose key was used before: the conversation exists, or was deleted."""
        placed = command.model_copy(update={"position": entry.position})
        try:
            return await self._conversation(entry.conversation_id).create(placed)
        except RpcError as error:
            if error.code is ErrorCode.NOT_FOUND:  # its purge removes the entry
                await self._manager(command.user_id).finish_create(entry)
            raise

    def _conversation(self, conversation_id: str) -> ConversationActorInterface:
        return self._actors.get(ConversationActorInterface, conversation_id)

    def _manager(self, user_id: str) -> ConversationManagerActorInterface:
        return self._actors.get(ConversationManagerActorInterface, user_id)


class UserErasure:
    """Erases a user's conversations, messages, turns, events and idempotency records."""

    def __init__(
        self,
        actors: Actors,
        events: EventLog,
        workflows: Workflows,
        records: IdempotencyRecords,
    ) -> None:
        self._actors = actors
        self._events = events
        self._workflows = workflows
        self._records = records

    async def erase(self, request: EraseUserInput) -> ErasedUser:
        """The activity `EraseUser`. It is done once every deleted conversation has purged itself."""
        if request.count_only:
            found = {"conversations": await self._count(request.user_id)}
            return ErasedUser(done=True, found=found)
        page = await self._page(request.user_id, 0)
        for entry in page:
            await self._delete(request.user_id, entry)
        await failpoint("erasure.after_delete")
        if page or not await self._disown_turns(request.user_id):
            return ErasedUser(done=False)
        await self._records.forget(request.user_id)
        await self._manager(request.user_id).forget_user()
        return ErasedUser(done=True)

    async def _disown_turns(self, user_id: str) -> bool:
        """Remove the user id from ended turns in others' conversations, cancel running ones; whether none was left."""
        streams = await self._events.list_by_owner(user_id)
        ended = [stream.stream_id for stream in streams if stream.closed_at is not None]
        if ended:
            await self._workflows.purge(ended)
            await self._events.clear_owner(ended)
        for stream in streams:
            if stream.closed_at is None:
                await self._events.request_cancel(stream.stream_id)
        return not streams

    async def _count(self, user_id: str) -> int:
        found, after = 0, 0
        while page := await self._page(user_id, after):
            found, after = found + len(page), page[-1].position
        return found

    async def _page(self, user_id: str, after: int) -> list[IndexEntry]:
        request = PageOfIdsRequest(after=after, limit=ERASURE_PAGE, order=SortOrder.ASCENDING)
        return (await self._manager(user_id).list_ids(request)).entries

    async def _delete(self, user_id: str, entry: IndexEntry) -> None:
        """Delete by position: an entry without a conversation must go too, or the erasure would never be done."""
        conversation = self._actors.get(ConversationActorInterface, entry.conversation_id)
        command = DeleteConversationCommand(user_id=user_id, position=entry.position)
        for turn_id in (await conversation.delete(command)).turn_ids:
            await self._events.request_cancel(turn_id)

    def _manager(self, user_id: str) -> ConversationManagerActorInterface:
        return self._actors.get(ConversationManagerActorInterface, user_id)
