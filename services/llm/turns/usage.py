"""What a turn used: as the provider counted it, and estimated where an attempt ended before the provider could say."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence

from services.contracts.events import EventType
from services.contracts.llm.turns import Usage
from services.kit.eventlog import EventLog, Segment, StoredEvent
from services.llm.domain import add_usage, estimated_usage, shown_text
from services.llm.domain.commands import Answer
from services.llm.ports import Prompt, TokenCounter


class UsageMeter:
    """Sums the usage of all attempts of a turn; learns from complete answers what a token of a model costs."""

    def __init__(self, events: EventLog, tokens: TokenCounter) -> None:
        self._events = events
        self._tokens = tokens
        self._prices: dict[str, float] = {}

    async def of_turn(self, segment: Segment, prompt: Prompt, answer: Answer) -> Usage | None:
        """The usage of this attempt's answer and of the attempts before it; None where the model was never asked.

        `estimated` says that a part was counted by a tokenizer, as the provider bills what it sent before a cut too.
        """
        self._learn(prompt.model, answer.usage)
        parts = [answer.usage] if answer.usage else []
        lost = [answer.text] if answer.usage is None and answer.asked else []
        if segment.number > 1:
            lost += await self._shown_before(segment)
        if lost:
            asked = await self._count("\n".join(message.text for message in prompt.messages))
            price = self._prices.get(prompt.model)
            parts += [estimated_usage(asked, await self._count(text), price) for text in lost]
        return add_usage(parts)

    async def _shown_before(self, segment: Segment) -> Sequence[str]:
        """The text of each earlier attempt that showed some."""
        texts: dict[int, list[str]] = defaultdict(list)
        after = 0
        while batch := await self._events.read(segment.stream_id, after):
            after = batch[-1].seq
            for event in batch:
                if _is_text(event) and event.attempt < segment.number:
                    texts[event.attempt].append(shown_text(event.data))
            if after >= segment.attempt.last_seq:
                break
        return ["".join(parts) for parts in texts.values()]

    async def _count(self, text: str) -> int:
        return await asyncio.to_thread(self._tokens.count, text) if text else 0

    def _learn(self, model: str, usage: Usage | None) -> None:
        if usage is not None and usage.cost and usage.total_tokens:
            self._prices[model] = usage.cost / usage.total_tokens


def _is_text(event: StoredEvent) -> bool:
    return event.type in (EventType.TEXT_DELTA, EventType.REASONING_DELTA)
