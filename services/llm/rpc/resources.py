"""What the routes work with."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, FastAPI, Request

from services.contracts.conversations import CONVERSATION_SERVICE
from services.contracts.turns import ConversationActorInterface, ConversationManagerActorInterface
from services.kit.access.cache import AccessCache
from services.kit.dapr.actors import Actors
from services.kit.eventlog import EventLog
from services.kit.http.draining import Draining
from services.kit.http.rpc import RpcRouter
from services.llm.domain import ConversationState
from services.llm.ports import LanguageModel, Ownership
from services.llm.turns import TurnService

ReadConversations = Callable[[Sequence[str]], Awaitable[list[ConversationState | None]]]
"""Committed heads of several conversations, read without waking their actors."""

rpc = RpcRouter(CONVERSATION_SERVICE)


@dataclass(frozen=True, slots=True)
class Resources:
    """Opened at start, closed at the end."""

    actors: Actors
    events: EventLog
    turns: TurnService
    model: LanguageModel
    ownership: Ownership
    access: AccessCache
    read_conversations: ReadConversations
    draining: Draining

    def conversation(self, conversation_id: str) -> ConversationActorInterface:
        """The actor of a conversation."""
        return self.actors.get(ConversationActorInterface, conversation_id)

    def manager(self, user_id: str) -> ConversationManagerActorInterface:
        """The actor of a user's conversations."""
        return self.actors.get(ConversationManagerActorInterface, user_id)


def provide(app: FastAPI, resources: Resources) -> None:
    """Hand the resources to the routes."""
    app.state.resources = resources


async def resources_of(request: Request) -> Resources:
    """What the routes of this app work with."""
    resources: Resources = request.app.state.resources
    return resources


With = Annotated[Resources, Depends(resources_of)]
