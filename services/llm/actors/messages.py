"""The messages of one conversation."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import ClassVar, Final

from pydantic import BaseModel

from services.contracts.conversations import ChatMessage
from services.kit.errors import ErrorCode, RpcError
from services.kit.state import DurableState
from services.llm.actors.purge import message_row
from services.llm.domain import CONTEXT_MESSAGES, ConversationState

MAX_CACHED_BYTES: Final = 32 * 1024 * 1024
OBJECT_BYTES: Final = 1500
"""About what a message takes beside its text."""


class RecentMessages:
    """The newest messages of the conversations that were used last, within a bound for the whole process."""

    def __init__(self, most_bytes: int = MAX_CACHED_BYTES) -> None:
        self._most = most_bytes
        self._total = 0
        self._cached: OrderedDict[str, tuple[int, dict[int, ChatMessage]]] = OrderedDict()

    def of(self, conversation_id: str) -> dict[int, ChatMessage]:
        """What is kept of a conversation, by seq."""
        found = self._cached.get(conversation_id)
        return found[1] if found else {}

    def keep(self, conversation_id: str, messages: dict[int, ChatMessage]) -> None:
        """Keep these instead, and drop what was not used for longest."""
        self.drop(conversation_id)
        size = sum(OBJECT_BYTES + len(message.text) for message in messages.values())
        self._cached[conversation_id] = size, messages
        self._total += size
        while self._total > self._most:
            _, (dropped, _) = self._cached.popitem(last=False)
            self._total -= dropped

    def drop(self, conversation_id: str) -> None:
        """Keep nothing of a conversation."""
        size, _ = self._cached.pop(conversation_id, (0, None))
        self._total -= size


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
            self._keep(known)
        return [known[seq] for seq in sequence if seq in known]

    async def latest(self, last_seq: int) -> list[ChatMessage]:
        """What a model may see of a history that ends here."""
        return await self.several(range(max(1, last_seq - CONTEXT_MESSAGES + 1), last_seq + 1))

    def keep(self, written: Iterable[BaseModel]) -> None:
        """Remember the messages among rows that were committed."""
        new = {row.seq: row for row in written if isinstance(row, ChatMessage)}
        self._keep({**self._recent.of(self._id), **new})

    def _keep(self, messages: dict[int, ChatMessage]) -> None:
        newest = sorted(messages)[-CONTEXT_MESSAGES:]
        self._recent.keep(self._id, {seq: messages[seq] for seq in newest})
