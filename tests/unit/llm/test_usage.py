"""Usage of turns, also with attempts that were cut off."""

from collections.abc import Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from services.contracts.llm.conversations import Role
from services.contracts.llm.turns import GenerationOptions, TurnStatus, Usage
from services.kit.eventlog import StoredEvent
from services.llm.domain.commands import Answer, PromptMessage
from services.llm.ports import Prompt
from services.llm.turns import UsageMeter
from tests.requirements import requirement

PROMPT = Prompt(
    "m", [PromptMessage(role=Role.USER, text="one two three")], GenerationOptions(), "u"
)
COUNTED = Usage(prompt_tokens=3, completion_tokens=1, total_tokens=4, cost=0.4)


class Words:
    """Counts words."""

    def count(self, text: str) -> int:
        return len(text.split())


class Events:
    """A stream of deltas, each an attempt and its text, read two at a time."""

    def __init__(self, *deltas: tuple[int, str]) -> None:
        at = datetime(2026, 1, 1, tzinfo=UTC)
        self._events = [
            StoredEvent(seq, "text.delta", attempt, f'{{"text":"{text}"}}', at)
            for seq, (attempt, text) in enumerate(deltas, 1)
        ]

    async def read(self, stream_id: str, after: int = 0) -> Sequence[StoredEvent]:
        return [event for event in self._events if event.seq > after][:2]


def a_segment(number: int, last_seq: int) -> Any:
    attempt = SimpleNamespace(last_seq=last_seq)
    return SimpleNamespace(stream_id="t", number=number, attempt=attempt)


def answered(**fields: Any) -> Answer:
    return Answer(status=TurnStatus.COMPLETED, asked=True, **fields)


def meter(*deltas: tuple[int, str]) -> UsageMeter:
    events: Any = Events(*deltas)
    return UsageMeter(events, Words())


@requirement("turns:usage")
async def test_usage_reported_by_the_provider_is_unchanged() -> None:
    assert await meter().measure(a_segment(1, 1), PROMPT, answered(usage=COUNTED)) == COUNTED


@requirement("turns:usage")
async def test_a_cut_answer_is_estimated_at_the_last_known_price() -> None:
    seen = meter()
    await seen.measure(a_segment(1, 1), PROMPT, answered(usage=COUNTED))
    cut = await seen.measure(a_segment(1, 1), PROMPT, answered(text="a b"))
    assert cut == Usage(
        prompt_tokens=3, completion_tokens=2, total_tokens=5, cost=0.5, estimated=True
    )


@requirement("turns:usage")
async def test_earlier_attempts_with_text_are_added() -> None:
    deltas = ((1, "a "), (1, "b"), (2, "c"), (3, "of this attempt"))
    usage = await meter(*deltas).measure(a_segment(3, 3), PROMPT, answered(usage=COUNTED))
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (3 * 3, 1 + 2 + 1)
    assert usage.estimated


@requirement("turns:usage")
async def test_a_model_that_was_never_called_has_no_usage() -> None:
    answer = Answer(status=TurnStatus.CANCELLED)
    assert await meter().measure(a_segment(1, 1), PROMPT, answer) is None
