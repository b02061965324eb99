"""A user's conversations: the index, written first on create and last on delete."""

from datetime import timedelta
from typing import Any, Final

from pydantic import BaseModel
from typing_extensions import override

from services.contracts.conversations import SortOrder
from services.contracts.turns import (
    ConversationActorInterface,
    ConversationManagerActorInterface,
    CreateConversationCommand,
    IndexEntry,
    PageOfIds,
    PageOfIdsRequest,
)
from services.kit.actors import ActorId, ActorRuntimeContext, Actors, DomainActor, Remindable
from services.kit.errors import ErrorCode, RpcError
from services.kit.failpoints import failpoint
from services.kit.sidecar import Sidecar
from services.kit.state import DurableState
from services.llm.domain import ConversationIndex, conversation_object
from services.llm.ports import Ownership

MEND: Final = "mend"
MEND_PERIOD: Final = timedelta(seconds=10)
MAX_PENDING: Final = 100
READ_AHEAD: Final = 100


class _Position(BaseModel):
    """Where in the index a conversation stands."""

    position: int


class ConversationManagerActor(DomainActor, ConversationManagerActorInterface, Remindable):
    """State: the head, `entry/<position>`, `position/<conversation>`, `pending/<conversation>`."""

    def __init__(
        self,
        ctx: ActorRuntimeContext,
        actor_id: ActorId,
        sidecar: Sidecar,
        actors: Actors,
        access: Ownership,
    ) -> None:
        super().__init__(ctx, actor_id)
        self._state = DurableState(
            sidecar, f"ConversationManagerActor/{self.entity_id}", ConversationIndex
        )
        self._actors = actors
        self._access = access

    @override
    def forget(self) -> None:
        """Discard what was read."""
        self._state.forget()

    @override
    async def begin_create(self, command: CreateConversationCommand) -> IndexEntry:
        """Enter a conversation into the index; a reminder creates it, and its owner's access, if nobody else does."""
        index = await self._load()
        known = await self._state.row(f"position/{command.conversation_id}", _Position)
        if known is not None:
            return IndexEntry(position=known.position, conversation_id=command.conversation_id)
        if len(index.pending) >= MAX_PENDING:
            raise RpcError(
                ErrorCode.RATE_LIMITED,
                "Too many conversations are being created.",
                retry_after=timedelta(seconds=5),
            )
        if not index.pending:
            await self.register_reminder(MEND, b"", MEND_PERIOD, MEND_PERIOD)
        index.last_position += 1
        index.pending = [*index.pending, command.conversation_id]
        entry = IndexEntry(position=index.last_position, conversation_id=command.conversation_id)
        await self._state.commit(
            index,
            add={
                f"entry/{entry.position}": entry,
                f"position/{entry.conversation_id}": _Position(position=entry.position),
                f"pending/{entry.conversation_id}": command.model_copy(
                    update={"position": entry.position}
                ),
            },
        )
        await failpoint("conversation.after_index")
        return entry

    @override
    async def list_ids(self, request: PageOfIdsRequest) -> PageOfIds:
        """A page of the index."""
        return await self._page(request)

    async def _page(self, request: PageOfIdsRequest) -> PageOfIds:
        """Deleted conversations leave holes, which cost a look but no place."""
        index = await self._load()
        ascending = request.order is SortOrder.ASCENDING
        step = 1 if ascending else -1
        position = (
            request.after + step if request.after else (1 if ascending else index.last_position)
        )
        found: list[IndexEntry] = []
        while 1 <= position <= index.last_position and len(found) <= request.limit:
            end = position + step * READ_AHEAD
            names = [
                f"entry/{at}" for at in range(position, end, step) if 1 <= at <= index.last_position
            ]
            found += [entry for entry in await self._state.rows(names, IndexEntry) if entry]
            position = end
        return PageOfIds(entries=found[: request.limit], more=len(found) > request.limit)

    @override
    async def remove(self, entry: IndexEntry) -> None:
        """Take a deleted conversation out of the index; repeatable."""
        index = await self._load()
        index.pending = [one for one in index.pending if one != entry.conversation_id]
        names = (f"{kind}/{entry.conversation_id}" for kind in ("position", "pending"))
        await self._state.commit(index, remove=[f"entry/{entry.position}", *names])

    @override
    async def forget_user(self) -> None:
        """Remove the head; FAILED_PRECONDITION while conversations are left."""
        page = await self._page(PageOfIdsRequest(limit=1))
        if page.entries:
            raise RpcError(ErrorCode.FAILED_PRECONDITION, "The user still has conversations.")
        await self._state.erase()

    @override
    async def receive_reminder(
        self, name: str, state: bytes, due_time: Any, period: Any, ttl: Any = None
    ) -> None:
        """Create what is in the index but may not exist: a creation that its caller did not finish."""
        del state, due_time, period, ttl
        if name == MEND:
            await self.exclusively(self._mend)

    async def _mend(self) -> None:
        index = await self._load()
        names = [f"pending/{conversation_id}" for conversation_id in index.pending]
        for command in await self._state.rows(names, CreateConversationCommand):
            if command is not None:
                await self._create(command)
        if index.pending:
            index.pending = []
            await self._state.commit(index, remove=names)
        await self.unregister_reminder(MEND)

    async def _create(self, command: CreateConversationCommand) -> None:
        try:
            await self._actors.get(ConversationActorInterface, command.conversation_id).create(
                command
            )
        except RpcError as error:
            if error.code is not ErrorCode.NOT_FOUND:
                raise
            return  # deleted meanwhile: nothing to mend
        await self._access.own(self.entity_id, conversation_object(command.conversation_id))

    async def _load(self) -> ConversationIndex:
        index = await self._state.load()
        return index.model_copy() if index else ConversationIndex()
