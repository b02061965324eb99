"""A sidecar that hangs: it takes calls of actors, and never passes them on.

daprd 1.18 keeps an actor type locked for ever if placement dies between the two messages with which it brings a new
table: each call of the type waits until its caller gives up, while health, state and invocation work as ever. The
next table in which the type changes ends that, and an app that is unhealthy for a while makes one.
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

LOOK_SECONDS: Final = 1.0
HANGS_AFTER: Final = 8.0
"""Seconds that a call waits before the sidecar is suspected; one that is passed on takes milliseconds."""
APART: Final = 60.0
"""Seconds between two attempts: where they do not help, they do not make it worse."""
TRIES: Final = 30
"""How many looks long the app is unhealthy at most; a sidecar counts three failed probes, 2 s apart."""

log = structlog.get_logger()


class PlacementWatch:
    """The calls that wait for the sidecar, and when it last passed one of their type on."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: dict[object, tuple[str, float]] = {}
        self._passed_on: dict[str, float] = {}
        self._ended = -APART
        self.is_releasing = False

    @contextmanager
    def calling(self, actor_type: str) -> Iterator[None]:
        """A call of an actor of this type through the sidecar."""
        call = object()
        self._waiting[call] = actor_type, self._clock()
        try:
            yield
            self.passed_on(actor_type)
        finally:
            del self._waiting[call]

    def passed_on(self, actor_type: str) -> None:
        """The sidecar delivered a call of this type, or brought its answer."""
        self._passed_on[actor_type] = self._clock()

    def suspect(self) -> str | None:
        """The type of which a call waits too long, and none was passed on since; None lately after an attempt to end it."""
        now = self._clock()
        if now - self._ended < APART:
            return None
        for actor_type, since in self._waiting.values():
            if now - since > HANGS_AFTER and self._passed_on.get(actor_type, 0.0) < since:
                return actor_type
        return None

    @contextmanager
    def releasing(self) -> Iterator[None]:
        """The sidecar is told that this app is unhealthy."""
        self._ended, self.is_releasing = self._clock(), True
        try:
            yield
        finally:
            self.is_releasing = False


placement_watch: Final = PlacementWatch()
"""Those of this process: it has one sidecar."""


@asynccontextmanager
async def open_sidecar() -> AsyncIterator[Sidecar]:
    """The connection to this app's sidecar, which is watched meanwhile."""
    sidecar = Sidecar()
    try:
        async with background(
            every(LOOK_SECONDS, partial(release_hung_actors, sidecar), "sidecar watch")
        ):
            yield sidecar
    finally:
        await sidecar.close()


async def release_hung_actors(sidecar: Sidecar) -> None:
    """Have a sidecar that hangs give up this app's actors and take them again, which brings it a new table.

    One that waits for placement, or is frozen itself, is left alone: that would not help it.
    """
    actor_type = placement_watch.suspect()
    if actor_type is None or actor_type not in await _hosted(sidecar):
        return
    await asyncio.sleep(LOOK_SECONDS)  # it may have woken just now
    if placement_watch.suspect() is None:
        return
    log.error("sidecar.hangs", actor=actor_type)
    with placement_watch.releasing():
        for _ in range(TRIES):
            await asyncio.sleep(LOOK_SECONDS)
            if actor_type not in await _hosted(sidecar):
                break
    log.info("sidecar.released", actor=actor_type)


async def _hosted(sidecar: Sidecar) -> set[str]:
    try:
        return await sidecar.hosted_actors()
    except SidecarError:
        return set()
