"""A user's conversations: the index, written first on create and last on delete."""

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
    takes_no_turn,
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
READ_AHEAD: Final = 100
MAX_CREATIONS: Final = 12
"""How many creations one commit takes; each is four rows."""
MAX_HOLES: Final = 10_000
"""How many places of deleted conversations are remembered, so that they are not looked at again."""
MAX_MARKS: Final = 50
"""How many marks of finished creations one commit removes."""

log = structlog.get_logger()


class _Position(BaseModel):
    """Where in the index a conversation stands."""

    position: int


class ConversationManagerActor(
    DomainActor[ConversationIndex], ConversationManagerActorInterface, Remindable
):
    """State: the head, `entry/<position>`, `position/<conversation>`, and `pending/<position>` for a begun creation.

    A finished creation is kept in memory until the next commit removes its mark. A mark that outlives the process is
    reconciled as if the creation were half done, which changes nothing where it is not.
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
        self._holes: set[int] = set()
        self._unmarked: set[int] = set()
        self._reminded = False
        self._creations = CallBatcher(self.exclusively, self._begin, MAX_CREATIONS)

    @override
    def forget(self) -> None:
        """Discard what was read."""
        super().forget()
        self._holes.clear()
        self._reminded = False

    @override
    @takes_no_turn
    async def begin_create(self, command: CreateConversationCommand) -> BegunCreation:
        """Enter a conversation into the index and create it, in one commit; a reminder gives its owner access if
        nobody else does.
        """
        return await self._creations.call(command)

    async def _begin(self, commands: Sequence[CreateConversationCommand]) -> list[BegunCreation]:
        if not self._reminded:  # once while creations come, not once for each
            await self.remind(RECONCILE, RECONCILE_PERIOD, RECONCILE_PERIOD)
            self._reminded = True
        try:
            begun = await self._enter(commands, new=True)
        except StateStoreError as error:
            if not error.answered:
                raise
            begun = [await self._enter_again(command) for command in commands]
        await failpoint("conversation.after_index")
        return begun

    async def _enter(
        self, commands: Sequence[CreateConversationCommand], *, new: bool
    ) -> list[BegunCreation]:
        index, now = await self._load(), self._clock()
        rows: dict[str, BaseModel] = {}
        begun: list[BegunCreation] = []
        creations: list[StateWrite] = []
        for command in commands:
            index.last_position += 1
            placed = command.model_copy(update={"position": index.last_position})
            state = ConversationState.create(placed, now)
            rows |= _rows_of(placed, now)
            creations += [ConversationActor.creation(placed.conversation_id, state)] if new else []
            view = state.view() if new else None
            begun.append(BegunCreation(position=placed.position, conversation=view))
        await self._commit(index, add=rows, creates=creations)
        return begun

    async def _enter_again(self, command: CreateConversationCommand) -> BegunCreation:
        """After a refusal: the call was delivered before, or its key is that of a conversation that was deleted."""
        known = await self.state.row(f"position/{command.conversation_id}", _Position)
        if known is not None:
            return BegunCreation(position=known.position)
        try:
            [begun] = await self._enter([command], new=True)
        except StateStoreError as error:
            if not error.answered:
                raise
            [begun] = await self._enter([command], new=False)
        return begun

    @override
    @takes_no_turn
    async def finish_create(self, entry: IndexEntry) -> None:
        """Note that nothing is left to reconcile."""
        self._finished.add(entry.position)

    @override
    async def list_ids(self, request: PageOfIdsRequest) -> PageOfIds:
        """A page of the index."""
        return await self._page(request)

    async def _page(self, request: PageOfIdsRequest) -> PageOfIds:
        """Deleted conversations leave holes, which cost a look but no place; a hole stays one, so one look is enough."""
        index = await self._load()
        ascending = request.order is SortOrder.ASCENDING
        step = 1 if ascending else -1
        position = (
            request.after + step if request.after else (1 if ascending else index.last_position)
        )
        found: list[IndexEntry] = []
        while 1 <= position <= index.last_position and len(found) <= request.limit:
            end = position + step * READ_AHEAD
            places = [
                at
                for at in range(position, end, step)
                if 1 <= at <= index.last_position and at not in self._holes
            ]
            rows = await self.state.rows([f"entry/{at}" for at in places], IndexEntry)
            found += [entry for entry in rows if entry]
            self._note_holes(at for at, entry in zip(places, rows, strict=True) if entry is None)
            position = end
        return PageOfIds(entries=found[: request.limit], more=len(found) > request.limit)

    def _note_holes(self, places: Iterable[int]) -> None:
        if len(self._holes) > MAX_HOLES:
            self._holes.clear()
        self._holes.update(places)

    @override
    async def remove(self, entry: IndexEntry) -> None:
        """Take a deleted conversation out of the index; repeatable. ABORTED while it is being created.

        So no tuple is written after the last one was removed.
        """
        index = await self.state.load()
        if index is None:
            return
        listed = await self.state.row(f"entry/{entry.position}", IndexEntry)
        if listed is None or listed.conversation_id != entry.conversation_id:
            return
        mark = _mark(entry.position)
        pending = await self.state.row(mark, PendingCreation)
        if pending is not None and entry.position not in self._finished:
            raise RpcError(ErrorCode.ABORTED, "The conversation is being created.")
        names = [f"entry/{entry.position}", f"position/{entry.conversation_id}", mark]
        await self.state.commit(index, remove=names)
        self._finished.discard(entry.position)
        if entry.position > index.settled:
            self._unmarked.add(entry.position)

    @override
    async def forget_user(self) -> None:
        """Remove the head; FAILED_PRECONDITION while conversations are left."""
        page = await self._page(PageOfIdsRequest(limit=1))
        if page.entries:
            raise RpcError(ErrorCode.FAILED_PRECONDITION, "The user still has conversations.")
        await self.unremind(RECONCILE)
        self._reminded = False
        await self.state.erase()

    @override
    async def on_reminder(self, name: str) -> None:
        """Create what is in the index but may not exist: a creation that its caller did not finish."""
        if name == RECONCILE:
            self.in_background(self._reconcile)

    async def _reconcile(self) -> None:
        overdue: list[CreateConversationCommand] = await self.exclusively(self._settle)
        for command in overdue:
            try:
                await self._create(command)
            except (
                RpcError
            ) as error:  # the next reminder tries again; the others need not wait for it
                log.warning("conversation.not_reconciled", code=error.code)
            else:
                self._finished.add(command.position)
        if overdue:
            await self.exclusively(self._settle)

    async def _settle(self) -> list[CreateConversationCommand]:
        """Remove the marks of finished creations, then move `settled` past them; the creations that are overdue."""
        while self._finished:
            await self._commit(await self._load())
        index, left = await self._load(), list[PendingCreation]()
        for first in range(index.settled + 1, index.last_position + 1, READ_AHEAD):
            last = min(first + READ_AHEAD - 1, index.last_position)
            names = [_mark(at) for at in range(first, last + 1) if at not in self._unmarked]
            left += [row for row in await self.state.rows(names, PendingCreation) if row]
        settled = left[0].command.position - 1 if left else index.last_position
        if settled != index.settled:
            index.settled = settled
            await self.state.commit(index)
            self._unmarked = {at for at in self._unmarked if at > settled}
        if not left:
            await self.unremind(RECONCILE)
            self._reminded = False
        now = self._clock()
        return [row.command for row in left if row.is_overdue(now)]

    async def _create(self, command: CreateConversationCommand) -> None:
        try:
            await self._actors.get(ConversationActorInterface, command.conversation_id).create(
                command
            )
        except RpcError as error:
            if error.code is not ErrorCode.NOT_FOUND:
                raise
            return  # deleted meanwhile: it leaves the index by itself
        await self._access.own(self.entity_id, conversation_object(command.conversation_id))

    async def _commit(
        self,
        index: ConversationIndex,
        add: Mapping[str, BaseModel] | None = None,
        creates: Sequence[StateWrite] = (),
    ) -> None:
        """Write, and remove some marks of finished creations with it."""
        finished = sorted(self._finished)[:MAX_MARKS]
        marks = [_mark(at) for at in finished]
        await self.state.commit(index, add=add, remove=marks, creates=creates)
        self._finished.difference_update(finished)
        self._unmarked.update(finished)

    async def _load(self) -> ConversationIndex:
        return await self.state.load() or ConversationIndex()


def _rows_of(placed: CreateConversationCommand, now: datetime) -> dict[str, BaseModel]:
    """What the index keeps of a creation that has begun."""
    position, name = placed.position, placed.conversation_id
    return {
        f"entry/{position}": IndexEntry(position=position, conversation_id=name),
        f"position/{name}": _Position(position=position),
        _mark(position): PendingCreation(command=placed, begun_at=now),
    }


def _mark(position: int) -> str:
    return f"pending/{position}"
