"""Registry of the actors that are active in this process; they are called directly, without the sidecar."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final, Generic, TypeVar

A = TypeVar("A")

CONFIRMATION_TTL: Final = timedelta(seconds=10)
"""How long a call from the sidecar confirms the placement of an actor. A deactivation can be lost (frozen process, dead
sidecar): unbounded, direct calls would use a stale actor forever. Calls through the sidecar also reset Dapr's idle
timer."""


class ActiveActors(Generic[A]):
    """The actors that Dapr activated in this process and has not deactivated."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._actors: dict[tuple[str, str], A] = {}
        self._confirmed: dict[tuple[str, str], float] = {}

    def add(self, actor_type: str, actor_id: str, actor: A) -> None:
        """Add an activated actor; it replaces an earlier activation of the same id."""
        self._actors[actor_type, actor_id] = actor
        self._confirmed[actor_type, actor_id] = self._clock()

    def confirm(self, actor_type: str, actor_id: str) -> None:
        """Note that the sidecar delivered a call, which confirms the placement."""
        if (actor_type, actor_id) in self._actors:
            self._confirmed[actor_type, actor_id] = self._clock()

    def remove(self, actor_type: str, actor_id: str) -> None:
        self._actors.pop((actor_type, actor_id), None)
        self._confirmed.pop((actor_type, actor_id), None)

    def find(self, actor_type: str, actor_id: str) -> A | None:
        """The actor, if its placement here was confirmed within CONFIRMATION_TTL."""
        confirmed = self._confirmed.get((actor_type, actor_id))
        if confirmed is None or self._clock() - confirmed > CONFIRMATION_TTL.total_seconds():
            return None
        return self._actors[actor_type, actor_id]
