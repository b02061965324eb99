"""`ConversationActor`: loads state, applies the rules of `domain`, commits."""

from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Final

from pydantic import BaseModel
from typing_extensions import override

from services.contracts.llm.conversations import (
    ChatMessage,
    Conversation,
    CreateConversationRequest,
    ListMessagesRequest,
    ListMessagesResponse,
    Role,
    UpdateConversationRequest,
)
from services.contracts.llm.turns import Turn, TurnRef, TurnStatus
from services.contracts.paging import SortOrder
from services.kit.clock import Clock
from services.kit.dapr.actors import Actors
from services.kit.dapr.domain_actor import ActorContext, DomainActor, Remindable
from services.kit.dapr.pubsub.outbox import OutboxEvent
from services.kit.errors import not_found
from services.kit.failpoints import failpoint
from services.kit.http.cursors import encode_cursor
from services.llm.actors.events import conversation_deleted, turn_completed
from services.llm.actors.interfaces import ConversationActorInterface
from services.llm.actors.messages import Messages
from services.llm.actors.pages import page_seqs
from services.llm.actors.purge import Purge, message_row, turn_row
from services.llm.domain import (
    ConversationState,
    TurnRecord,
    context_window,
    request_cancel,
    require_same_request,
)
from services.llm.domain.commands import (
    AppendMessageCommand,
    BeginTurnCommand,
    BegunTurn,
    CompletedTurn,
    CompleteTurnCommand,
    CreateConversationCommand,
    DeleteConversationCommand,
    DeletedConversation,
    PromptMessage,
    TurnAnswer,
    TurnContext,
)
from services.llm.ports import Ownership, TurnStreams

PAGE_BYTES: Final = 1024 * 1024
"""Maximum size of a page of messages in JSON; a page has at least one message."""
PURGE: Final = "purge"
PURGE_PERIOD: Final = timedelta(seconds=5)


class _MessageSeq(BaseModel):
    seq: int


class ConversationActor(DomainActor[ConversationState], ConversationActorInterface, Remindable):
    """State rows: the head, `message/<seq>`, `turn/<id>`, and `message-id/<id>` for ids derived from an idempotency key."""

    def __init__(
        self,
        context: ActorContext,
        actors: Actors,
        streams: TurnStreams,
        access: Ownership,
        clock: Clock,
    ) -> None:
        super().__init__(context)
        self._messages = Messages(self.entity_id, self.state)
        self._purge = Purge(self.state, actors, streams, access)
        self._clock = clock

    @override
    def forget(self) -> None:
        super().forget()
        self._messages.forget()

    @override
    async def create(self, command: CreateConversationCommand) -> Conversation:
        state = await self.state.load()
        if state is None:
            state = ConversationState.create(command, self._clock())
            await self.state.commit(state)
        elif state.deleted and state.position != command.position:
            # The key of a deleted conversation was reused: the purge must remove the new index entry too.
            await self._restart_purge(state, command.user_id, command.position)
        state.require_owner(command.user_id)
        return state.view()

    @override
    async def read(self) -> Conversation:
        return (await self._load_existing()).view()

    @override
    async def update(self, request: UpdateConversationRequest) -> Conversation:
        state = await self._load_existing()
        state.update(request, self._clock())
        await self.state.commit(state)
        return state.view()

    @override
    async def delete(self, command: DeleteConversationCommand) -> DeletedConversation:
        """Set the reminder before the commit: a crash between them must not leave rows behind."""
        state = await self.state.load()
        if state is None and command.position is None:
            raise not_found("conversation")
        if state is not None and state.deleted:
            if command.position is not None and command.position != state.position:
                await self._restart_purge(state, command.user_id, command.position)
            return DeletedConversation(turn_ids=[])
        state = state or self._create_missing(command)
        await self._schedule_purge()
        queued = [
            turn_row(turn_id) for turn_id in state.queue
        ]  # without messages, by which the purge finds turns
        turn_ids = state.delete(self._clock())
        await self.state.commit(state, remove=queued, events=[conversation_deleted(state)])
        self._messages.forget()
        return DeletedConversation(turn_ids=turn_ids)

    @override
    async def append_message(self, command: AppendMessageCommand) -> ChatMessage:
        state = await self._load_existing()
        stored = await self._find_message(state, command)
        if stored is not None:
            return stored
        request = command.request
        message = state.append(request.role, request.text, command.message_id, self._clock())
        rows: dict[str, BaseModel] = {message_row(message.seq): message}
        if command.repeatable:
            rows[f"message-id/{command.message_id}"] = _MessageSeq(seq=message.seq)
        await self._save(state, rows)
        return message

    @override
    async def list_messages(self, request: ListMessagesRequest) -> ListMessagesResponse:
        state = await self._load_existing()
        scope = f"messages/{self.entity_id}/{request.order}"
        seqs = page_seqs(state.last_seq, request, scope)
        messages: list[ChatMessage] = []
        bytes_left = PAGE_BYTES
        for message in await self._messages.read_many(seqs):
            bytes_left -= len(message.to_json())
            if messages and bytes_left < 0:
                break
            messages.append(message)
        last = messages[-1].seq if messages else 0
        more = bool(messages) and last != (
            state.last_seq if request.order is SortOrder.ASCENDING else 1
        )
        return ListMessagesResponse(
            messages=messages, next_cursor=encode_cursor(scope, last) if more else None
        )

    @override
    async def begin_turn(self, command: BeginTurnCommand) -> BegunTurn:
        state = await self._load_existing()
        repeated = await self._find_turn(state, command)
        if repeated is not None:
            require_same_request(repeated, command.request)
            return BegunTurn(turn=repeated.turn)
        now = self._clock()
        state = await self._end_overdue(state)
        record = state.admit(command.turn_id, command.model, command.request, now)
        record.key_id = command.key_id
        rows: dict[str, BaseModel] = {}
        if command.turn_id not in state.queue:
            record, message = state.begin(record, _message_id(command.turn_id, Role.USER), now)
            rows[message_row(message.seq)] = message
        await self._save(state, {**rows, turn_row(command.turn_id): record})
        await failpoint("turn.after_user_commit")
        running = record.turn.status is TurnStatus.RUNNING
        return BegunTurn(
            turn=record.turn, context=await self._build_context(state, record) if running else None
        )

    @override
    async def turn_context(self, ref: TurnRef) -> TurnContext:
        return await self._build_context(
            await self._load_existing(), await self._load_turn(ref.turn_id)
        )

    @override
    async def complete_turn(self, command: CompleteTurnCommand) -> CompletedTurn:
        state = await self._load_existing()
        record = await self._load_turn(command.turn_id)
        if record.turn.status.is_terminal:
            return CompletedTurn(turn=record.turn, next_turn_id=state.active_turn_id)
        ended = await self._complete(state, record, command)
        await failpoint("turn.after_commit")
        return CompletedTurn(turn=ended.turn, next_turn_id=state.active_turn_id)

    async def _end_overdue(self, state: ConversationState) -> ConversationState:
        """Fail an overdue running turn: if recovery lost its stream, it would block the conversation."""
        if state.active_turn_id is None:
            return state
        record = await self._load_turn(state.active_turn_id)
        if not record.is_overdue(self._clock()):
            return state
        await self._complete(state, record, record.time_out())
        return await self._load_existing()  # the next commit needs the new ETag

    async def _complete(
        self, state: ConversationState, record: TurnRecord, command: CompleteTurnCommand
    ) -> TurnRecord:
        """End the running turn and begin the next of the queue, in one commit."""
        now = self._clock()
        ended, answer = state.complete(
            record, command, _message_id(command.turn_id, Role.ASSISTANT), now
        )
        rows: dict[str, BaseModel] = {message_row(answer.seq): answer} if answer else {}
        changed: dict[str, BaseModel] = {turn_row(command.turn_id): ended}
        if state.queue:
            first, *state.queue = state.queue
            begun, message = state.begin(
                await self._load_turn(first), _message_id(first, Role.USER), now
            )
            rows[message_row(message.seq)] = message
            changed[turn_row(first)] = begun
        await self._save(state, rows, changed, [turn_completed(state, ended.turn)])
        return ended

    @override
    async def get_turn(self, ref: TurnRef) -> TurnAnswer:
        await self._load_existing()
        record = await self._load_turn(ref.turn_id)
        seq = record.turn.assistant_message_seq
        answer = await self._messages.read(seq) if seq else None
        return TurnAnswer(turn=record.turn, message=answer, key_id=record.key_id)

    @override
    async def cancel_turn(self, ref: TurnRef) -> Turn:
        state = await self._load_existing()
        record = await self._load_turn(ref.turn_id)
        turn = record.turn
        if turn.status.is_terminal or turn.cancel is not None:
            return turn
        rows: dict[str, BaseModel] = {}
        if turn.status is TurnStatus.QUEUED:
            message_id = _message_id(ref.turn_id, Role.USER)
            record, message = state.cancel_queued(record, message_id, self._clock())
            rows[message_row(message.seq)] = message
        else:
            record = request_cancel(record, self._clock())
        ended = [turn_completed(state, record.turn)] if record.turn.status.is_terminal else []
        await self._save(state, rows, {turn_row(ref.turn_id): record}, ended)
        return record.turn

    @override
    async def on_reminder(self, name: str) -> None:
        if name == PURGE:
            self.in_background(self._purge_data)

    async def _build_context(self, state: ConversationState, record: TurnRecord) -> TurnContext:
        history = context_window(
            await self._messages.read_latest(record.turn.user_message_seq or state.last_seq)
        )
        prompt = (
            [PromptMessage(role=Role.SYSTEM, text=state.system_prompt)]
            if state.system_prompt
            else []
        )
        prompt += [PromptMessage(role=message.role, text=message.text) for message in history]
        return TurnContext(
            turn=record.turn,
            epoch=record.epoch,
            key_id=record.key_id,
            deadline=record.deadline,
            options=record.options,
            messages=prompt,
        )

    async def _find_message(
        self, state: ConversationState, command: AppendMessageCommand
    ) -> ChatMessage | None:
        """The message of an earlier delivery of this call. Without a client's key, only recent messages are searched."""
        if command.repeatable:
            stored = await self.state.row(f"message-id/{command.message_id}", _MessageSeq)
            return await self._messages.read(stored.seq) if stored else None
        if not await self._messages.has_recent(command.message_id, state.last_seq):
            return None
        recent = await self._messages.read_latest(state.last_seq)
        return next(one for one in recent if one.message_id == command.message_id)

    async def _find_turn(
        self, state: ConversationState, command: BeginTurnCommand
    ) -> TurnRecord | None:
        """The turn of an earlier delivery of this call. Without a client's key, only recent turns are searched."""
        recent = {message.turn_id for message in await self._messages.read_latest(state.last_seq)}
        if not command.repeatable and command.turn_id not in recent.union(state.queue):
            return None
        return await self.state.row(turn_row(command.turn_id), TurnRecord)

    def _create_missing(self, command: DeleteConversationCommand) -> ConversationState:
        """State for an index entry without a conversation, so that its purge removes the entry."""
        creation = CreateConversationCommand(
            user_id=command.user_id,
            conversation_id=self.entity_id,
            position=command.position or 0,
            request=CreateConversationRequest(),
        )
        return ConversationState.create(creation, self._clock())

    async def _purge_data(self) -> None:
        """Remove all that may go by now; between two commits the lock is free."""
        state: ConversationState | None = await self.run_exclusively(self._load_unpurged)
        if state is None:
            return
        turn_ids, has_more = await self._purge.delete_streams(self.entity_id)
        while await self.run_exclusively(partial(self._purge.delete_rows, turn_ids)):
            turn_ids = []
        if has_more:
            return
        await self._purge.delete_index_entry(state)
        if await self.run_exclusively(lambda: self._purge.clear_owner(state)):
            await self.run_exclusively(self._load_unpurged)

    async def _load_unpurged(self) -> ConversationState | None:
        """The state of a deleted conversation with data left; clears the reminder if there is none."""
        state = await self.state.load()
        if state is None or not state.deleted or state.is_purged:
            await self.clear_reminder(PURGE)
            return None
        return state

    async def _restart_purge(self, state: ConversationState, user_id: str, position: int) -> None:
        await self._schedule_purge()
        state.owner, state.position = user_id, position
        await self.state.commit(state)

    async def _schedule_purge(self) -> None:
        await self.set_reminder(PURGE, timedelta(seconds=1), PURGE_PERIOD)

    async def _load_existing(self) -> ConversationState:
        state = await self.state.load()
        if state is None or state.deleted:
            raise not_found("conversation")
        return state

    async def _load_turn(self, turn_id: str) -> TurnRecord:
        record = await self.state.row(turn_row(turn_id), TurnRecord)
        if record is None:
            raise not_found("turn")
        return record

    async def _save(
        self,
        state: ConversationState,
        rows: dict[str, BaseModel],
        changed: dict[str, BaseModel] | None = None,
        events: Sequence[OutboxEvent] = (),
    ) -> None:
        await self.state.commit(state, add=rows, put=changed, events=events)
        self._messages.remember(rows.values())


def _message_id(turn_id: str, role: Role) -> str:
    return f"msg_{turn_id.removeprefix('turn_')}_{role.lower()}"
