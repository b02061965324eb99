"""The messages of one conversation."""

from collections.abc import Iterable, Sequence

from pydantic import BaseModel

from services.contracts.conversations import ChatMessage
from services.kit.errors import ErrorCode, RpcError
from services.kit.state import DurableState
from services.llm.actors.purge import message_row
from services.llm.domain import CONTEXT_MESSAGES, ConversationState


class Messages:
    """Rows that never change once written; the newest are kept in memory."""

    def __init__(self, state: DurableState[ConversationState]) -> None:
        self._state = state
        self._recent: dict[int, ChatMessage] = {}

    def forget(self) -> None:
        """Discard what was read."""
        self._recent.clear()

    async def one(self, seq: int) -> ChatMessage:
        """A message that is referred to."""
        message = await self._state.row(message_row(seq), ChatMessage)
        if message is None:
            raise RpcError(ErrorCode.INTERNAL, "A stored message is missing.")
        return message

    async def several(self, sequence: Sequence[int]) -> list[ChatMessage]:
        """Messages in the order of `sequence`."""
        unknown = [seq for seq in sequence if seq not in self._recent]
        rows = await self._state.rows([message_row(seq) for seq in unknown], ChatMessage)
        self._recent.update({row.seq: row for row in rows if row is not None})
        found = [self._recent[seq] for seq in sequence if seq in self._recent]
        self._trim()
        return found

    async def latest(self, last_seq: int) -> list[ChatMessage]:
        """What a model may see of a history that ends here."""
        return await self.several(range(max(1, last_seq - CONTEXT_MESSAGES + 1), last_seq + 1))

    def keep(self, written: Iterable[BaseModel]) -> None:
        """Remember the messages among rows that were committed."""
        self._recent.update({row.seq: row for row in written if isinstance(row, ChatMessage)})
        self._trim()

    def _trim(self) -> None:
        for seq in sorted(self._recent)[:-CONTEXT_MESSAGES]:
            del self._recent[seq]
