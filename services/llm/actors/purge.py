"""What a deleted conversation leaves behind, and its way out of its owner's index."""

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


def message_row(seq: int) -> str:
    """Where a message is stored."""
    return f"message/{seq}"


def turn_row(turn_id: str) -> str:
    """Where a turn is stored."""
    return f"turn/{turn_id}"


class Purge:
    """Removes rows, streams, the index entry and the relationship tuples of one deleted conversation, in that order.

    Methods that end in `_rows` or `_mark` change the actor's state and run under its lock; the others call other actors
    and apps, and do not.
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

    async def streams(self, conversation_id: str) -> tuple[list[str], bool]:
        """End and delete the streams of its turns: the turns deleted, and whether some are left."""
        return await self._streams.purge(conversation_id)

    async def remove_rows(self, turns: list[str]) -> bool:
        """Remove rows, some at a time; whether messages may be left."""
        state = await self._state.load()
        if turns:
            await self._state.drop(turn_row(turn_id) for turn_id in turns)
        if state is None or state.last_seq == 0:
            return False
        seqs = range(max(1, state.last_seq - PURGE_ROWS + 1), state.last_seq + 1)
        names = [message_row(seq) for seq in seqs]
        found = [row for row in await self._state.rows(names, ChatMessage) if row]
        names += [f"message-id/{message.message_id}" for message in found]
        names += {turn_row(message.turn_id) for message in found if message.turn_id}
        state.last_seq = seqs.start - 1
        await self._state.commit(state, remove=names)
        return True

    async def leave(self, state: ConversationState) -> None:
        """Remove the index entry before the tuples: until then erasure counts the conversation as left to do."""
        manager = self._actors.get(ConversationManagerActorInterface, state.owner)
        entry = IndexEntry(position=state.position, conversation_id=state.conversation_id)
        await manager.remove(entry)
        await failpoint("conversation.before_forget")
        await self._access.forget(conversation_object(state.conversation_id))

    async def remove_mark(self, left: ConversationState) -> bool:
        """Forget the owner, unless a creation with an old key has entered it into the index again meanwhile."""
        state = await self._state.load()
        if state is None or state.position != left.position:
            return False
        state.owner = ""
        await self._state.commit(state)
        return True
