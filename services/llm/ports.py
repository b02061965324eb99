"""Ports of the llm app."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from services.contracts.llm.turns import GenerationOptions, Usage
from services.llm.domain.commands import PromptMessage


@dataclass(frozen=True, slots=True)
class Prompt:
    model: str
    messages: list[PromptMessage]
    options: GenerationOptions
    user: str


@dataclass(frozen=True, slots=True)
class TextDelta:
    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """Ends a complete answer; a stream without it is incomplete."""

    finish_reason: str
    model: str
    usage: Usage | None


ModelEvent = TextDelta | ReasoningDelta | Finished


class TokenCounter(Protocol):
    """Estimates token counts that the provider did not report."""

    def count(self, text: str) -> int: ...


class LanguageModel(Protocol):
    def stream(self, prompt: Prompt) -> AbstractAsyncContextManager[AsyncIterator[ModelEvent]]:
        """Stream an answer; leaving the context closes the connection to the provider at once.

        Raises:
            RpcError: the provider's failure; STREAM_INCOMPLETE if the stream ends without `Finished`.
        """
        ...

    def require_allowed(self, model: str) -> None:
        """Raise MODEL_INVALID for a model that is not allowed."""
        ...


class Ownership(Protocol):
    """Relationship tuples of objects. Methods are repeatable and raise UNAVAILABLE."""

    async def own(self, user_id: str, target: str) -> None:
        """Write the tuple that makes a user the owner of an object."""
        ...

    async def forget(self, target: str) -> None:
        """Delete every tuple of a deleted object."""
        ...


class Charges(Protocol):
    """Charges to the budgets of API keys."""

    async def charge(self, key_id: str, reference: str, amount: float) -> None:
        """Charge a cost in US dollars, once per `reference`. Raises UNAVAILABLE."""
        ...


class TurnStreams(Protocol):
    """The event streams of a conversation's turns."""

    async def purge(self, conversation_id: str) -> tuple[list[str], bool]:
        """Close open streams and delete old ones. Returns the turn ids deleted, and whether streams are left."""
        ...
