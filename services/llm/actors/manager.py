"""`ConversationManagerActor`: a user's conversation index, written first on create and last on delete."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import structlog
from pydantic import BaseModel
from typing_extensions import override

from services.contracts.paging import SortOrder
from services.kit.clock import Clock
from services.kit.dapr.actors import Actors
from services.kit.dapr.batching import CallBatcher
from services.kit.dapr.domain_actor import (
    ActorContext,
    DomainActor,
    Remindable,
    without_lock,
)
from services.kit.dapr.state_rows import StateStoreError, StateWrite
from services.kit.errors import ErrorCode, RpcError
from services.kit.failpoints import failpoint
from services.llm.actors.conversation import ConversationActor
from services.llm.actors.interfaces import (
    ConversationActorInterface,
    ConversationManagerActorInterface,
)
from services.llm.domain import (
    ConversationIndex,
    ConversationState,
    PendingCreation,
    conversation_object,
)
from services.llm.domain.commands import (
    BegunCreation,
    CreateConversationCommand,
    IndexEntry,
    PageOfIds,
    PageOfIdsRequest,
)
from services.llm.ports import Ownership

RECONCILE: Final = "reconcile"
RECONCILE_PERIOD: Final = timedelta(seconds=10)
ROWS_PER_READ: Final = 100
MAX_CREATIONS: Final = 12
"""Maximum creations per commit; each writes four rows."""
MAX_GAPS: Final = 10_000
"""Maximum cached positions of deleted conversations, which pages skip without a read."""
MAX_CLEARED_ROWS: Final = 50
"""Maximum `pending` rows of finished creations removed per commit."""

log = structlog.get_logger()


class _Position(BaseModel):
    position: int


class ConversationManagerActor(
    DomainActor[ConversationIndex], ConversationManagerActorInterface, Remindable
):
    """State rows: the head, `entry/<position>`, `position/<conversation>`, and `pending/<position>` of a begun creation.

    Finished creations are held in memory until the next commit removes their `pending` rows. After a crash such rows
    are reconciled like unfinished creations, which is harmless.
    """

    def __init__(
        self,
        context: ActorContext,
        actors: Actors,
        access: Ownership,
        clock: Clock,
    ) -> None:
        super().__init__(context)
        self._actors = actors
        self._access = access
        self._clock = clock
        self._finished: set[int] = set()
        self._gaps: set[int] = set()
        self._not_pending: set[int] = set()
        self._has_reminder = False
        self._creations = CallBatcher(self.run_exclusively, self._begin_batch, MAX_CREATIONS)

    @override
    def forget(self) -> None:
        super().forget()
        self._gaps.clear()
        self._has_reminder = False

    @override
    @without_lock
    async def begin_create(self, command: CreateConversationCommand) -> BegunCreation:
        return await self._creations.call(command)

    async def _begin_batch(
        self, commands: Sequence[CreateConversationCommand]
    ) -> list[BegunCreation]:
        if not self._has_reminder:  # one reminder serves a series of creations
            await self.set_reminder(RECONCILE, RECONCILE_PERIOD, RECONCILE_PERIOD)
            self._has_reminder = True
        try:
            begun = await self._insert(commands, create=True)
        except StateStoreError as error:
            if not error.answered:
                raise
            begun = [await self._insert_repeated(command) for command in commands]
        await failpoint("conversation.after_index")
        return begun

    async def _insert(
        self, commands: Sequence[CreateConversationCommand], *, create: bool
    ) -> list[BegunCreation]:
        """Add index entries and, with `create`, the conversations' heads in the same commit."""
        index, now = await self._load(), self._clock()
        rows: dict[str, BaseModel] = {}
        begun: list[BegunCreation] = []
        creations: list[StateWrite] = []
        for command in commands:
            index.last_position += 1
            placed = command.model_copy(update={"position": index.last_position})
            rows |= _index_rows(placed, now)
            view = None
            if create:
                state = ConversationState.create(placed, now)
                creations.append(ConversationActor.creation_write(placed.conversation_id, state))
                view = state.view()
            begun.append(BegunCreation(position=placed.position, conversation=view))
        await self._commit(index, add=rows, creates=creations)
        return begun

    async def _insert_repeated(self, command: CreateConversationCommand) -> BegunCreation:
        """Insert one whose batch conflicted: this call may be a repeat, or reuse a deleted conversation's key."""
        existing = await self.state.row(f"position/{command.conversation_id}", _Position)
        if existing is not None:
            return BegunCreation(position=existing.position)
        try:
            [begun] = await self._insert([command], create=True)
        except StateStoreError as error:
            if not error.answered:
                raise
            [begun] = await self._insert([command], create=False)
        return begun

    @override
    @without_lock
    async def finish_create(self, entry: IndexEntry) -> None:
        self._finished.add(entry.position)

    @override
    async def list_ids(self, request: PageOfIdsRequest) -> PageOfIds:
        return await self._read_page(request)

    async def _read_page(self, request: PageOfIdsRequest) -> PageOfIds:
        """Deleted conversations leave gaps: positions that stay empty, so one read of each is enough."""
        index = await self._load()
        ascending = request.order is SortOrder.ASCENDING
        step = 1 if ascending else -1
        position = (
            request.after + step if request.after else (1 if ascending else index.last_position)
        )
        found: list[IndexEntry] = []
        while 1 <= position <= index.last_position and len(found) <= request.limit:
            end = position + step * ROWS_PER_READ
            positions = [
                at
                for at in range(position, end, step)
                if 1 <= at <= index.last_position and at not in self._gaps
            ]
            rows = await self.state.rows([f"entry/{at}" for at in positions], IndexEntry)
            found += [entry for entry in rows if entry]
            self._note_gaps(at for at, entry in zip(positions, rows, strict=True) if entry is None)
            position = end
        return PageOfIds(entries=found[: request.limit], more=len(found) > request.limit)

    def _note_gaps(self, positions: Iterable[int]) -> None:
        if len(self._gaps) > MAX_GAPS:
            self._gaps.clear()
        self._gaps.update(positions)

    @override
    async def remove(self, entry: IndexEntry) -> None:
        """Refused during creation, which would write the owner's tuple after the purge has removed it."""
        index = await self.state.load()
        if index is None:
            return
        listed = await self.state.row(f"entry/{entry.position}", IndexEntry)
        if listed is None or listed.conversation_id != entry.conversation_id:
            return
        pending_row = _pending_row(entry.position)
        pending = await self.state.row(pending_row, PendingCreation)
        if pending is not None and entry.position not in self._finished:
            raise RpcError(ErrorCode.ABORTED, "The conversation is being created.")
        names = [f"entry/{entry.position}", f"position/{entry.conversation_id}", pending_row]
        await self.state.commit(index, remove=names)
        self._finished.discard(entry.position)
        if entry.position > index.settled:
            self._not_pending.add(entry.position)

    @override
    async def forget_user(self) -> None:
        page = await self._read_page(PageOfIdsRequest(limit=1))
        if page.entries:
            raise RpcError(ErrorCode.FAILED_PRECONDITION, "The user still has conversations.")
        await self.clear_reminder(RECONCILE)
        self._has_reminder = False
        await self.state.erase()

    @override
    async def on_reminder(self, name: str) -> None:
        if name == RECONCILE:
            self.in_background(self._reconcile)

    async def _reconcile(self) -> None:
        overdue: list[CreateConversationCommand] = await self.run_exclusively(self._clear_finished)
        for command in overdue:
            try:
                await self._finish(command)
            except RpcError as error:  # the next reminder retries
                log.warning("conversation.not_reconciled", code=error.code)
            else:
                self._finished.add(command.position)
        if overdue:
            await self.run_exclusively(self._clear_finished)

    async def _clear_finished(self) -> list[CreateConversationCommand]:
        """Remove finished creations' `pending` rows and advance `settled`. Returns the overdue creations."""
        while self._finished:
            await self._commit(await self._load())
        index, pending = await self._load(), list[PendingCreation]()
        for first in range(index.settled + 1, index.last_position + 1, ROWS_PER_READ):
            end = min(first + ROWS_PER_READ, index.last_position + 1)
            names = [_pending_row(at) for at in range(first, end) if at not in self._not_pending]
            pending += [row for row in await self.state.rows(names, PendingCreation) if row]
        settled = pending[0].command.position - 1 if pending else index.last_position
        if settled != index.settled:
            index.settled = settled
            await self.state.commit(index)
            self._not_pending = {at for at in self._not_pending if at > settled}
        if not pending:
            await self.clear_reminder(RECONCILE)
            self._has_reminder = False
        now = self._clock()
        return [row.command for row in pending if row.is_overdue(now)]

    async def _finish(self, command: CreateConversationCommand) -> None:
        """Repeat the steps that the caller of a creation makes after `begin_create`."""
        try:
            await self._actors.get(ConversationActorInterface, command.conversation_id).create(
                command
            )
        except RpcError as error:
            if error.code is not ErrorCode.NOT_FOUND:
                raise
            return  # deleted: its purge removes the index entry
        await self._access.own(self.entity_id, conversation_object(command.conversation_id))

    async def _commit(
        self,
        index: ConversationIndex,
        add: Mapping[str, BaseModel] | None = None,
        creates: Sequence[StateWrite] = (),
    ) -> None:
        """Commit, and remove `pending` rows of finished creations along with it."""
        finished = sorted(self._finished)[:MAX_CLEARED_ROWS]
        names = [_pending_row(at) for at in finished]
        await self.state.commit(index, add=add, remove=names, creates=creates)
        self._finished.difference_update(finished)
        self._not_pending.update(finished)

    async def _load(self) -> ConversationIndex:
        return await self.state.load() or ConversationIndex()


def _index_rows(placed: CreateConversationCommand, now: datetime) -> dict[str, BaseModel]:
    position, name = placed.position, placed.conversation_id
    return {
        f"entry/{position}": IndexEntry(position=position, conversation_id=name),
        f"position/{name}": _Position(position=position),
        _pending_row(position): PendingCreation(command=placed, begun_at=now),
    }


def _pending_row(position: int) -> str:
    return f"pending/{position}"
