"""Reads a conversation's messages through a cache of recent ones."""

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

MAX_CACHE_BYTES: Final = 32 * 1024 * 1024
OBJECT_BYTES: Final = 1500
"""Approximate memory of a message without its text."""


@dataclass(slots=True)
class _CachedMessages:
    """The newest messages of one conversation in order, and their approximate bytes."""

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


EMPTY: Final = _CachedMessages()


class MessageCache:
    """LRU cache by conversation of its newest messages, bounded in bytes for the process."""

    def __init__(self, max_bytes: int = MAX_CACHE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._size = 0
        self._cached: OrderedDict[str, _CachedMessages] = OrderedDict()

    def get(self, conversation_id: str) -> dict[int, ChatMessage]:
        """Cached messages by seq, oldest first; read-only."""
        return self._cached.get(conversation_id, EMPTY).messages

    def has_id(self, conversation_id: str, message_id: str) -> bool:
        """Whether a cached message has this id."""
        return message_id in self._cached.get(conversation_id, EMPTY).ids

    def replace(self, conversation_id: str, messages: Mapping[int, ChatMessage]) -> None:
        """Cache the newest of these messages only."""
        self.discard(conversation_id)
        self.append(conversation_id, [messages[seq] for seq in sorted(messages)])

    def append(self, conversation_id: str, messages: Iterable[ChatMessage]) -> None:
        """Cache messages that follow the cached ones; evict the least recently used conversations."""
        cached = self._cached.setdefault(conversation_id, _CachedMessages())
        self._cached.move_to_end(conversation_id)
        self._size -= cached.size
        for message in messages:
            cached.add(message)
        self._size += cached.size
        while self._size > self._max_bytes:
            _, evicted = self._cached.popitem(last=False)
            self._size -= evicted.size

    def discard(self, conversation_id: str) -> None:
        """Remove a conversation from the cache."""
        self._size -= self._cached.pop(conversation_id, EMPTY).size


class Messages:
    """The message rows of one conversation, which never change once written."""

    _cache: ClassVar = MessageCache()

    def __init__(self, conversation_id: str, state: DurableState[ConversationState]) -> None:
        self._id = conversation_id
        self._state = state

    def forget(self) -> None:
        """Discard the conversation's cached messages."""
        self._cache.discard(self._id)

    async def read(self, seq: int) -> ChatMessage:
        """Read a message that must exist."""
        message = await self._state.row(message_row(seq), ChatMessage)
        if message is None:
            raise RpcError(ErrorCode.INTERNAL, "A stored message is missing.")
        return message

    async def read_many(self, seqs: Sequence[int]) -> list[ChatMessage]:
        """Read messages in the order of `seqs`; missing ones are left out."""
        cached = self._cache.get(self._id)
        missing = [seq for seq in seqs if seq not in cached]
        if missing:
            rows = await self._state.rows([message_row(seq) for seq in missing], ChatMessage)
            cached = {**cached, **{row.seq: row for row in rows if row is not None}}
            self._cache.replace(self._id, cached)
        return [cached[seq] for seq in seqs if seq in cached]

    async def read_latest(self, last_seq: int) -> list[ChatMessage]:
        """Read the CONTEXT_MESSAGES messages up to `last_seq`."""
        return await self.read_many(range(max(1, last_seq - CONTEXT_MESSAGES + 1), last_seq + 1))

    async def has_recent(self, message_id: str, last_seq: int) -> bool:
        """Whether one of the newest messages has this id."""
        oldest = max(1, last_seq - CONTEXT_MESSAGES + 1)
        cached = self._cache.get(self._id)
        if oldest in cached and last_seq in cached and len(cached) == last_seq - oldest + 1:
            return self._cache.has_id(self._id, message_id)
        return any(one.message_id == message_id for one in await self.read_latest(last_seq))

    def remember(self, written: Iterable[BaseModel]) -> None:
        """Cache the messages among committed rows."""
        new = [row for row in written if isinstance(row, ChatMessage)]
        cached = self._cache.get(self._id)
        if new and new[0].seq == next(reversed(cached), 0) + 1:
            self._cache.append(self._id, new)
        elif new:
            self._cache.replace(self._id, {**cached, **{row.seq: row for row in new}})
