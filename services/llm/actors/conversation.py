"""One conversation: load, decide, save."""

from datetime import timedelta
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
from services.kit.errors import not_found
from services.kit.failpoints import failpoint
from services.kit.http.cursors import encode_cursor
from services.llm.actors.interfaces import ConversationActorInterface
from services.llm.actors.messages import Messages
from services.llm.actors.pages import page_of
from services.llm.actors.purge import Purge, message_row, turn_row
from services.llm.domain import (
    ConversationState,
    TurnRecord,
    context_window,
    request_cancel,
    require_same,
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
"""How long a page of messages may be on the wire; one message is always in it."""
_NOTHING: Final = CreateConversationRequest()
PURGE: Final = "purge"
PURGE_PERIOD: Final = timedelta(seconds=5)


class _MessageAt(BaseModel):
    """Where a message with a derived id is."""

    seq: int


class ConversationActor(DomainActor[ConversationState], ConversationActorInterface, Remindable):
    """State: the head, `message/<seq>`, `turn/<id>`, and `message-id/<id>` for ids derived from a key."""

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
        """Discard what was read."""
        super().forget()
        self._messages.forget()

    @override
    async def create(self, command: CreateConversationCommand) -> Conversation:
        """Create it if its manager has not; repeatable."""
        state = await self.state.load()
        if state is None:
            state = ConversationState.create(command, self._clock())
            await self.state.commit(state)
        elif state.deleted and state.position != command.position:
            # An old key: what it entered into the index goes as the conversation went, or goes.
            await self._purge_again(state, command.user_id, command.position)
        state.require_owner(command.user_id)
        return state.view()

    @override
    async def read(self) -> Conversation:
        """Read it."""
        return (await self._living()).view()

    @override
    async def update(self, request: UpdateConversationRequest) -> Conversation:
        """Change it."""
        state = await self._living()
        state.update(request, self._clock())
        await self.state.commit(state)
        return state.view()

    @override
    async def delete(self, command: DeleteConversationCommand) -> DeletedConversation:
        """Mark it deleted; repeatable. The reminder comes first, so that nothing is left behind for ever."""
        state = await self.state.load()
        if state is None and command.position is None:
            raise not_found("conversation")
        if state is not None and state.deleted:
            if command.position is not None and command.position != state.position:
                await self._purge_again(state, command.user_id, command.position)
            return DeletedConversation(turn_ids=[])
        state = state or self._never_created(command)
        await self._remind()
        queued = [turn_row(turn_id) for turn_id in state.queue]  # nothing else leads to their rows
        stopping = state.delete(self._clock())
        await self.state.commit(state, remove=queued)
        self._messages.forget()
        return DeletedConversation(turn_ids=stopping)

    @override
    async def append_message(self, command: AppendMessageCommand) -> ChatMessage:
        """Append a message without a turn."""
        state = await self._living()
        stored = await self._known_message(state, command)
        if stored is not None:
            return stored
        request = command.request
        message = state.append(request.role, request.text, command.message_id, self._clock())
        rows: dict[str, BaseModel] = {message_row(message.seq): message}
        if command.repeatable:
            rows[f"message-id/{command.message_id}"] = _MessageAt(seq=message.seq)
        await self._save(state, rows)
        return message

    @override
    async def list_messages(self, request: ListMessagesRequest) -> ListMessagesResponse:
        """A page of messages."""
        state = await self._living()
        scope = f"messages/{self.entity_id}/{request.order}"
        sequence = page_of(state.last_seq, request, scope)
        messages: list[ChatMessage] = []
        room = PAGE_BYTES
        for message in await self._messages.several(sequence):
            room -= len(message.to_json())
            if messages and room < 0:
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
        """Append the user message and admit the turn."""
        state = await self._living()
        known = await self._known_turn(state, command)
        if known is not None:
            require_same(known, command.request)
            return BegunTurn(turn=known.turn)
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
            turn=record.turn, context=await self._context(state, record) if running else None
        )

    @override
    async def turn_context(self, ref: TurnRef) -> TurnContext:
        """What the model shall see: the system prompt and the newest messages up to the turn's own."""
        return await self._context(await self._living(), await self._record(ref.turn_id))

    @override
    async def complete_turn(self, command: CompleteTurnCommand) -> CompletedTurn:
        """End the turn and begin the next of the queue; repeatable."""
        state = await self._living()
        record = await self._record(command.turn_id)
        if record.turn.status.is_terminal:
            return CompletedTurn(turn=record.turn, next_turn_id=state.active_turn_id)
        ended = await self._end(state, record, command)
        await failpoint("turn.after_commit")
        return CompletedTurn(turn=ended.turn, next_turn_id=state.active_turn_id)

    async def _end_overdue(self, state: ConversationState) -> ConversationState:
        """A turn that should have ended long ago keeps nobody waiting, whatever became of its stream."""
        if state.active_turn_id is None:
            return state
        record = await self._record(state.active_turn_id)
        if not record.is_overdue(self._clock()):
            return state
        await self._end(state, record, record.expiry())
        return await self._living()  # a commit needs the ETag that the last one got

    async def _end(
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
            waiting = await self._record(first)
            turn_id = waiting.turn.turn_id
            begun, message = state.begin(waiting, _message_id(turn_id, Role.USER), now)
            rows[message_row(message.seq)] = message
            changed[turn_row(turn_id)] = begun
        await self._save(state, rows, changed)
        return ended

    @override
    async def get_turn(self, ref: TurnRef) -> TurnAnswer:
        """Read a turn with its answer."""
        await self._living()
        record = await self._record(ref.turn_id)
        turn = record.turn
        answer = (
            await self._messages.one(turn.assistant_message_seq)
            if turn.assistant_message_seq
            else None
        )
        return TurnAnswer(turn=turn, message=answer, key_id=record.key_id)

    @override
    async def cancel_turn(self, ref: TurnRef) -> Turn:
        """Ask a turn to stop; a queued one ends at once."""
        state = await self._living()
        record = await self._record(ref.turn_id)
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
        await self._save(state, rows, {turn_row(ref.turn_id): record})
        return record.turn

    @override
    async def on_reminder(self, name: str) -> None:
        """Remove what a deleted conversation left behind, some at a time."""
        if name == PURGE:
            self.in_background(self._purge_some)

    async def _context(self, state: ConversationState, record: TurnRecord) -> TurnContext:
        history = context_window(
            await self._messages.latest(record.turn.user_message_seq or state.last_seq)
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

    async def _known_message(
        self, state: ConversationState, command: AppendMessageCommand
    ) -> ChatMessage | None:
        """The message, if this call was delivered before: lately, or ever when its key is the caller's own."""
        if command.repeatable:
            at = await self.state.row(f"message-id/{command.message_id}", _MessageAt)
            return await self._messages.one(at.seq) if at else None
        if not await self._messages.knows(command.message_id, state.last_seq):
            return None
        lately = await self._messages.latest(state.last_seq)
        return next(one for one in lately if one.message_id == command.message_id)

    async def _known_turn(
        self, state: ConversationState, command: BeginTurnCommand
    ) -> TurnRecord | None:
        """The turn, if this call was delivered before: lately, or ever when its key is the caller's own."""
        lately = {message.turn_id for message in await self._messages.latest(state.last_seq)}
        if not command.repeatable and command.turn_id not in lately.union(state.queue):
            return None
        return await self.state.row(turn_row(command.turn_id), TurnRecord)

    def _never_created(self, command: DeleteConversationCommand) -> ConversationState:
        """An entry in the index with nothing behind it leaves as if there were."""
        creation = CreateConversationCommand(
            user_id=command.user_id,
            conversation_id=self.entity_id,
            position=command.position or 0,
            request=_NOTHING,
        )
        return ConversationState.create(creation, self._clock())

    async def _purge_some(self) -> None:
        state: ConversationState | None = await self.exclusively(self._to_purge)
        if state is None:
            return
        turns, left = await self._purge.streams(self.entity_id)
        if await self.exclusively(lambda: self._purge.remove_rows(turns)) or left:
            return
        await self._purge.leave(state)
        if await self.exclusively(lambda: self._purge.remove_mark(state)):
            await self.exclusively(self._to_purge)

    async def _to_purge(self) -> ConversationState | None:
        state = await self.state.load()
        if state is None or not state.deleted or state.is_purged:
            await self.unremind(PURGE)
            return None
        return state

    async def _purge_again(self, state: ConversationState, user_id: str, position: int) -> None:
        await self._remind()
        state.owner, state.position = user_id, position
        await self.state.commit(state)

    async def _remind(self) -> None:
        await self.remind(PURGE, timedelta(seconds=1), PURGE_PERIOD)

    async def _living(self) -> ConversationState:
        state = await self.state.load()
        if state is None or state.deleted:
            raise not_found("conversation")
        return state

    async def _record(self, turn_id: str) -> TurnRecord:
        record = await self.state.row(turn_row(turn_id), TurnRecord)
        if record is None:
            raise not_found("turn")
        return record

    async def _save(
        self,
        state: ConversationState,
        rows: dict[str, BaseModel],
        changed: dict[str, BaseModel] | None = None,
    ) -> None:
        await self.state.commit(state, add=rows, put=changed)
        self._messages.keep(rows.values())


def _message_id(turn_id: str, role: Role) -> str:
    return f"msg_{turn_id.removeprefix('turn_')}_{role.lower()}"
