"""Detects actor types that daprd keeps locked, and releases them.

If placement dies between its "lock" and "unlock" messages, daprd 1.18 keeps an actor type locked forever: every call of
the type times out while health, state and invocation work. A new placement table for the type unlocks it, and an app
that reports itself unhealthy for a few seconds causes one.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Final

import structlog

from services.kit.background import background, every
from services.kit.dapr.sidecar import Sidecar, SidecarError

CHECK_SECONDS: Final = 1.0
STUCK_SECONDS: Final = 8.0
"""Undelivered for so long, a call counts as stuck; normally delivery takes milliseconds."""
RELEASE_INTERVAL_SECONDS: Final = 60.0
"""Minimum time between two releases: each makes the app unhealthy for a while."""
MAX_RELEASE_CHECKS: Final = 30
"""Bounds how long the app reports itself unhealthy; the sidecar needs three failed probes, 2 s apart."""

log = structlog.get_logger()


class PlacementWatch:
    """Tracks calls that wait for the sidecar, and its last delivery per actor type."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: dict[object, tuple[str, float]] = {}
        self._delivered: dict[str, float] = {}
        self._last_release = -RELEASE_INTERVAL_SECONDS
        self.is_releasing = False

    @contextmanager
    def calling(self, actor_type: str) -> Iterator[None]:
        """Track a call through the sidecar for the duration of the block."""
        call = object()
        self._waiting[call] = actor_type, self._clock()
        try:
            yield
            self.delivered(actor_type)
        finally:
            del self._waiting[call]

    def delivered(self, actor_type: str) -> None:
        """Note that the sidecar delivered a call of this type or its response."""
        self._delivered[actor_type] = self._clock()

    def stuck_actor_type(self) -> str | None:
        """A type with a stuck call and no delivery since that call began; None soon after a release."""
        now = self._clock()
        if now - self._last_release < RELEASE_INTERVAL_SECONDS:
            return None
        for actor_type, since in self._waiting.values():
            if now - since > STUCK_SECONDS and self._delivered.get(actor_type, 0.0) < since:
                return actor_type
        return None

    @contextmanager
    def releasing(self) -> Iterator[None]:
        """Report this app as unhealthy for the duration of the block."""
        self._last_release, self.is_releasing = self._clock(), True
        try:
            yield
        finally:
            self.is_releasing = False


placement_watch: Final = PlacementWatch()
"""The watch of this process, which has one sidecar."""


@asynccontextmanager
async def open_sidecar() -> AsyncIterator[Sidecar]:
    """Open the connection to this app's sidecar, and watch it for stuck actor types."""
    sidecar = Sidecar()
    try:
        async with background(
            every(CHECK_SECONDS, partial(release_stuck_actors, sidecar), "placement watch")
        ):
            yield sidecar
    finally:
        await sidecar.close()


async def release_stuck_actors(sidecar: Sidecar) -> None:
    """Release a stuck actor type by making daprd unregister and register this app's actors.

    Skipped if the sidecar hosts no actors or does not respond: then a release would not help.
    """
    actor_type = placement_watch.stuck_actor_type()
    if actor_type is None or actor_type not in await _hosted(sidecar):
        return
    # After a freeze of this process, the deliveries may follow at once.
    await asyncio.sleep(CHECK_SECONDS)
    if placement_watch.stuck_actor_type() is None:
        return
    log.error("sidecar.actors_stuck", actor=actor_type)
    with placement_watch.releasing():
        for _ in range(MAX_RELEASE_CHECKS):
            await asyncio.sleep(CHECK_SECONDS)
            if actor_type not in await _hosted(sidecar):
                break
    log.info("sidecar.released", actor=actor_type)


async def _hosted(sidecar: Sidecar) -> set[str]:
    try:
        return await sidecar.hosted_actors()
    except SidecarError:
        return set()
