"""Removal of a deleted conversation's data."""

from typing import Final

from services.contracts.llm.conversations import ChatMessage
from services.kit.dapr.actors import Actors
from services.kit.dapr.state import DurableState
from services.kit.failpoints import failpoint
from services.llm.actors.interfaces import ConversationManagerActorInterface
from services.llm.domain import ConversationState, conversation_object
from services.llm.domain.commands import IndexEntry
from services.llm.ports import Ownership, TurnStreams

PURGE_ROWS: Final = 100
"""Maximum messages removed per commit."""


def message_row(seq: int) -> str:
    """State key of a message."""
    return f"message/{seq}"


def turn_row(turn_id: str) -> str:
    """State key of a turn."""
    return f"turn/{turn_id}"


class Purge:
    """Removes streams, rows, index entry and relationship tuples of one deleted conversation, in that order.

    `delete_rows` and `clear_owner` change the actor's state and run under its lock. The others call other actors and
    apps, so they must not.
    """

    def __init__(
        self,
        state: DurableState[ConversationState],
        actors: Actors,
        streams: TurnStreams,
        access: Ownership,
    ) -> None:
        self._state = state
        self._actors = actors
        self._streams = streams
        self._access = access

    async def delete_streams(self, conversation_id: str) -> tuple[list[str], bool]:
        """Close and delete the turns' streams. Returns the ids deleted, and whether streams are left."""
        return await self._streams.purge(conversation_id)

    async def delete_rows(self, turn_ids: list[str]) -> bool:
        """Delete the rows of these turns and of some messages; whether messages may be left."""
        state = await self._state.load()
        if turn_ids:
            await self._state.drop(turn_row(turn_id) for turn_id in turn_ids)
        if state is None or state.last_seq == 0:
            return False
        seqs = range(max(1, state.last_seq - PURGE_ROWS + 1), state.last_seq + 1)
        names = [message_row(seq) for seq in seqs]
        found = [row for row in await self._state.rows(names, ChatMessage) if row]
        names += [f"message-id/{message.message_id}" for message in found]
        names += {turn_row(message.turn_id) for message in found if message.turn_id}
        state.last_seq = seqs.start - 1
        await self._state.commit(state, remove=names)
        await failpoint("conversation.after_rows")
        return True

    async def delete_index_entry(self, state: ConversationState) -> None:
        """Remove the index entry before the tuples: a concurrent reconcile could recreate tuples while it exists."""
        manager = self._actors.get(ConversationManagerActorInterface, state.owner)
        entry = IndexEntry(position=state.position, conversation_id=state.conversation_id)
        await manager.remove(entry)
        await failpoint("conversation.before_forget")
        await self._access.forget(conversation_object(state.conversation_id))

    async def clear_owner(self, purged: ConversationState) -> bool:
        """Mark the conversation purged; False if a reused key has added another index entry since."""
        state = await self._state.load()
        if state is None or state.position != purged.position:
            return False
        state.owner = ""
        await self._state.commit(state)
        return True
