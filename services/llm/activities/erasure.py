"""The right to erasure: removes what this app has of a user."""

from typing import Final

from services.contracts.accounts import ErasedUser, EraseUserInput
from services.contracts.conversations import SortOrder
from services.contracts.turns import (
    ConversationActorInterface,
    ConversationManagerActorInterface,
    DeleteConversationCommand,
    IndexEntry,
    PageOfIdsRequest,
)
from services.kit.dapr.actors import Actors
from services.kit.eventlog import EventLog
from services.kit.failpoints import failpoint
from services.kit.http.idempotency import IdempotencyRecords
from services.llm.ports import TurnWorkflows

PAGE: Final = 100


class UserErasure:
    """Hosts the activity `EraseUser`: conversations with their messages, turns and events, and stored replies."""

    def __init__(
        self,
        actors: Actors,
        events: EventLog,
        workflows: TurnWorkflows,
        records: IdempotencyRecords,
    ) -> None:
        self._actors = actors
        self._events = events
        self._workflows = workflows
        self._records = records

    async def run(self, request: EraseUserInput) -> ErasedUser:
        """The activity. Conversations remove themselves; until the last has gone, some is left."""
        if request.survey:
            return ErasedUser(
                done=True, found={"conversations": await self._count(request.user_id)}
            )
        page = await self._page(request.user_id, 0)
        for entry in page:
            await self._delete(request.user_id, entry)
        await failpoint("erasure.after_delete")
        if page or not await self._leave_others(request.user_id):
            return ErasedUser(done=False)
        await self._records.forget(request.user_id)
        await self._manager(request.user_id).forget_user()
        return ErasedUser(done=True)

    async def _leave_others(self, user_id: str) -> bool:
        """Turns in other people's conversations stay, without the name; whether that was all."""
        streams = await self._events.of_owner(user_id)
        ended = [stream.stream_id for stream in streams if stream.closed_at is not None]
        if ended:
            await self._workflows.purge(ended)
            await self._events.disown(ended)
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
        request = PageOfIdsRequest(after=after, limit=PAGE, order=SortOrder.ASCENDING)
        return (await self._manager(user_id).list_ids(request)).entries

    async def _delete(self, user_id: str, entry: IndexEntry) -> None:
        """Whatever is behind an entry, it leaves the index: so the erasure comes to an end."""
        conversation = self._actors.get(ConversationActorInterface, entry.conversation_id)
        command = DeleteConversationCommand(user_id=user_id, position=entry.position)
        for turn_id in (await conversation.delete(command)).turn_ids:
            await self._events.request_cancel(turn_id)

    def _manager(self, user_id: str) -> ConversationManagerActorInterface:
        return self._actors.get(ConversationManagerActorInterface, user_id)
