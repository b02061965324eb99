"""The messages of one conversation."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final

from pydantic import BaseModel

from services.contracts.llm.conversations import ChatMessage
from services.kit.dapr.state import DurableState
from services.kit.errors import ErrorCode, RpcError
from services.llm.actors.purge import message_row
from services.llm.domain import CONTEXT_MESSAGES, ConversationState

MAX_CACHED_BYTES: Final = 32 * 1024 * 1024
OBJECT_BYTES: Final = 1500
"""About what a message takes beside its text."""


@dataclass(slots=True)
class _Recent:
    """The newest messages of one conversation, in their order, and how much room they take."""

    messages: dict[int, ChatMessage] = field(default_factory=dict[int, ChatMessage])
    ids: set[str] = field(default_factory=set[str])
    size: int = 0

    def add(self, message: ChatMessage) -> None:
        self.messages[message.seq] = message
        self.ids.add(message.message_id)
        self.size += OBJECT_BYTES + len(message.text)
        if len(self.messages) > CONTEXT_MESSAGES:
            oldest = self.messages.pop(next(iter(self.messages)))
            self.ids.discard(oldest.message_id)
            self.size -= OBJECT_BYTES + len(oldest.text)


NOTHING: Final = _Recent()


class RecentMessages:
    """The newest messages of the conversations that were used last, within a bound for the whole process."""

    def __init__(self, most_bytes: int = MAX_CACHED_BYTES) -> None:
        self._most = most_bytes
        self._total = 0
        self._cached: OrderedDict[str, _Recent] = OrderedDict()

    def of(self, conversation_id: str) -> dict[int, ChatMessage]:
        """What is kept of a conversation, by seq, the oldest first; not to be changed."""
        return self._cached.get(conversation_id, NOTHING).messages

    def has_id(self, conversation_id: str, message_id: str) -> bool:
        """Whether a message with this id is kept."""
        return message_id in self._cached.get(conversation_id, NOTHING).ids

    def keep(self, conversation_id: str, messages: Mapping[int, ChatMessage]) -> None:
        """Keep the newest of these instead."""
        self.drop(conversation_id)
        self.add(conversation_id, [messages[seq] for seq in sorted(messages)])

    def add(self, conversation_id: str, messages: Iterable[ChatMessage]) -> None:
        """Keep these too, which follow those that are kept; drop what was not used for longest."""
        recent = self._cached.setdefault(conversation_id, _Recent())
        self._cached.move_to_end(conversation_id)
        self._total -= recent.size
        for message in messages:
            recent.add(message)
        self._total += recent.size
        while self._total > self._most:
            _, dropped = self._cached.popitem(last=False)
            self._total -= dropped.size

    def drop(self, conversation_id: str) -> None:
        """Keep nothing of a conversation."""
        self._total -= self._cached.pop(conversation_id, NOTHING).size


class Messages:
    """Rows that never change once written; the newest are kept in memory."""

    _recent: ClassVar = RecentMessages()

    def __init__(self, conversation_id: str, state: DurableState[ConversationState]) -> None:
        self._id = conversation_id
        self._state = state

    def forget(self) -> None:
        """Discard what was read."""
        self._recent.drop(self._id)

    async def one(self, seq: int) -> ChatMessage:
        """A message that is referred to."""
        message = await self._state.row(message_row(seq), ChatMessage)
        if message is None:
            raise RpcError(ErrorCode.INTERNAL, "A stored message is missing.")
        return message

    async def several(self, sequence: Sequence[int]) -> list[ChatMessage]:
        """Messages in the order of `sequence`."""
        known = self._recent.of(self._id)
        unknown = [seq for seq in sequence if seq not in known]
        if unknown:
            rows = await self._state.rows([message_row(seq) for seq in unknown], ChatMessage)
            known = {**known, **{row.seq: row for row in rows if row is not None}}
            self._recent.keep(self._id, known)
        return [known[seq] for seq in sequence if seq in known]

    async def latest(self, last_seq: int) -> list[ChatMessage]:
        """What a model may see of a history that ends here."""
        return await self.several(range(max(1, last_seq - CONTEXT_MESSAGES + 1), last_seq + 1))

    async def knows(self, message_id: str, last_seq: int) -> bool:
        """Whether one of the newest messages has this id."""
        oldest = max(1, last_seq - CONTEXT_MESSAGES + 1)
        known = self._recent.of(self._id)
        if oldest in known and last_seq in known and len(known) == last_seq - oldest + 1:
            return self._recent.has_id(self._id, message_id)
        return any(one.message_id == message_id for one in await self.latest(last_seq))

    def keep(self, written: Iterable[BaseModel]) -> None:
        """Remember the messages among rows that were committed."""
        new = [row for row in written if isinstance(row, ChatMessage)]
        known = self._recent.of(self._id)
        if new and new[0].seq == next(reversed(known), 0) + 1:
            self._recent.add(self._id, new)
        elif new:
            self._recent.keep(self._id, {**known, **{row.seq: row for row in new}})
