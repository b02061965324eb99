"""Which actors are active in this process: those are called in place, without the sidecar."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final, Generic, TypeVar

A = TypeVar("A")

CONFIRMED_FOR: Final = timedelta(seconds=10)
"""How long a call by the sidecar proves that Dapr has the actor here. A deactivation may get lost (frozen process,
sidecar that died): without this bound the process would answer from memory for ever beside the new owner. It also
keeps an actor that is only called in place from being idle in Dapr's eyes."""


class ActiveActors(Generic[A]):
    """The actors that Dapr activated here and has not deactivated."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._actors: dict[tuple[str, str], A] = {}
        self._confirmed: dict[tuple[str, str], float] = {}

    def add(self, actor_type: str, actor_id: str, actor: A) -> None:
        """Dapr activated an actor; a second activation of the same id replaces the first."""
        self._actors[actor_type, actor_id] = actor
        self._confirmed[actor_type, actor_id] = self._clock()

    def confirm(self, actor_type: str, actor_id: str) -> None:
        """The sidecar delivered a call: Dapr has the actor here."""
        if (actor_type, actor_id) in self._actors:
            self._confirmed[actor_type, actor_id] = self._clock()

    def remove(self, actor_type: str, actor_id: str) -> None:
        """Dapr deactivated an actor."""
        self._actors.pop((actor_type, actor_id), None)
        self._confirmed.pop((actor_type, actor_id), None)

    def find(self, actor_type: str, actor_id: str) -> A | None:
        """The actor, if Dapr is known to have had it here within CONFIRMED_FOR."""
        confirmed = self._confirmed.get((actor_type, actor_id))
        if confirmed is None or self._clock() - confirmed > CONFIRMED_FOR.total_seconds():
            return None
        return self._actors[actor_type, actor_id]
