"""Usage of a turn: reported by the provider, or estimated for attempts that were cut off."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence

from services.contracts.events import EventType
from services.contracts.llm.turns import Usage
from services.kit.eventlog import EventLog, Segment, StoredEvent
from services.llm.domain import delta_text, estimate_usage, sum_usage
from services.llm.domain.commands import Answer
from services.llm.ports import Prompt, TokenCounter


class UsageMeter:
    """Sums the usage of a turn's attempts; learns each model's price per token from reported costs."""

    def __init__(self, events: EventLog, tokens: TokenCounter) -> None:
        self._events = events
        self._tokens = tokens
        self._prices: dict[str, float] = {}

    async def measure(self, segment: Segment, prompt: Prompt, answer: Answer) -> Usage | None:
        """The usage of this answer and of earlier attempts; None if the model was never called.

        Attempts that were cut off are estimated, because the provider bills what it sent.
        """
        self._learn_price(prompt.model, answer.usage)
        parts = [answer.usage] if answer.usage else []
        unreported = [answer.text] if answer.usage is None and answer.asked else []
        if segment.number > 1:
            unreported += await self._read_earlier_texts(segment)
        if unreported:
            prompt_tokens = await self._count("\n".join(one.text for one in prompt.messages))
            price = self._prices.get(prompt.model)
            parts += [
                estimate_usage(prompt_tokens, await self._count(text), price) for text in unreported
            ]
        return sum_usage(parts)

    async def _read_earlier_texts(self, segment: Segment) -> Sequence[str]:
        """The text of each earlier attempt that has some."""
        texts: dict[int, list[str]] = defaultdict(list)
        after = 0
        while batch := await self._events.read(segment.stream_id, after):
            after = batch[-1].seq
            for event in batch:
                if _is_text(event) and event.attempt < segment.number:
                    texts[event.attempt].append(delta_text(event.data))
            if after >= segment.attempt.last_seq:
                break
        return ["".join(parts) for parts in texts.values()]

    async def _count(self, text: str) -> int:
        return await asyncio.to_thread(self._tokens.count, text) if text else 0

    def _learn_price(self, model: str, usage: Usage | None) -> None:
        if usage is not None and usage.cost and usage.total_tokens:
            self._prices[model] = usage.cost / usage.total_tokens


def _is_text(event: StoredEvent) -> bool:
    return event.type in (EventType.TEXT_DELTA, EventType.REASONING_DELTA)
