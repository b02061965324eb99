"""What this app needs of the outside world."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from services.contracts.llm.turns import GenerationOptions, Usage
from services.llm.domain.commands import PromptMessage


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question to a model."""

    model: str
    messages: list[PromptMessage]
    options: GenerationOptions
    user: str


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """A piece of what the model thought on the way."""

    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The proper end of an answer; without it the answer is incomplete."""

    finish_reason: str
    model: str
    usage: Usage | None


ModelEvent = TextDelta | ReasoningDelta | Finished


class TokenCounter(Protocol):
    """Counts tokens where the provider did not."""

    def count(self, text: str) -> int:
        """About as many as a provider would count."""
        ...


class LanguageModel(Protocol):
    """Answers prompts, streamed."""

    def stream(self, prompt: Prompt) -> AbstractAsyncContextManager[AsyncIterator[ModelEvent]]:
        """The answer as it is made; leaving the context closes the connection to the provider at once.

        Raises:
            RpcError: by class of failure; STREAM_INCOMPLETE when the stream ends without `Finished`.
        """
        ...

    def check(self, model: str) -> None:
        """MODEL_INVALID for a model that may not be used."""
        ...


class Ownership(Protocol):
    """The relationship tuples that follow from objects. UNAVAILABLE where they cannot be written."""

    async def own(self, user_id: str, target: str) -> None:
        """Make a user the owner of an object; repeatable."""
        ...

    async def forget(self, target: str) -> None:
        """Remove every tuple of an object that is no more; repeatable."""
        ...


class Charges(Protocol):
    """The budgets of API keys."""

    async def charge(self, key_id: str, reference: str, amount: float) -> None:
        """Book a cost in US dollars, once per reference. UNAVAILABLE where it cannot be booked."""
        ...


class TurnStreams(Protocol):
    """The event streams of a conversation's turns."""

    async def purge(self, conversation_id: str) -> tuple[list[str], bool]:
        """End what is open, delete what ended a while ago: the turns deleted, and whether some are left."""
        ...
