"""Detects that daprd does not serve this app's workflows, and makes it begin again.

When the worker's stream closes, daprd 1.18 removes the workflow actor types and waits for their turns to end. A turn that
begins in between waits for a worker, and a new worker waits for the removal: after a crash of the app nothing runs. A
sidecar whose app is unhealthy for three probes cuts these turns.
"""

import asyncio
import re
import time
from collections.abc import Callable
from typing import Final

import structlog

from services.kit.dapr.placement_watch import placement_watch
from services.kit.dapr.sidecar import Sidecar, SidecarError

WORKFLOW_TYPE: Final = re.compile(r"dapr\.internal\..+\.workflow")
CHECK_SECONDS: Final = 2.0
STUCK_SECONDS: Final = 8.0
"""Not registered for so long after the worker connected counts as stuck; normally it takes milliseconds."""
MAX_RELEASE_CHECKS: Final = 10
"""Bounds how long the app reports itself unhealthy."""

log = structlog.get_logger()


class RegistrationWatch:
    """Follows the workflow actor type of this app's sidecar."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._missing_since: float | None = None

    async def run(self) -> None:
        """Check until cancelled."""
        sidecar = Sidecar()
        try:
            while True:
                await asyncio.sleep(CHECK_SECONDS)
                if self.is_stuck(await _is_registered(sidecar)):
                    await self._release(sidecar)
        finally:
            await sidecar.close()

    def is_stuck(self, registered: bool | None) -> bool:
        """Whether the type has been missing for too long; None (no answer, or no placement table) begins anew."""
        if registered is not False:
            self._missing_since = None
            return False
        if self._missing_since is None:
            self._missing_since = self._clock()
        return self._clock() - self._missing_since >= STUCK_SECONDS

    async def _release(self, sidecar: Sidecar) -> None:
        log.error("workflows.not_registered")
        with placement_watch.releasing():
            for _ in range(MAX_RELEASE_CHECKS):
                await asyncio.sleep(CHECK_SECONDS)
                if await _is_registered(sidecar) is not False:
                    break
        self._missing_since = None
        log.info("workflows.released")


async def _is_registered(sidecar: Sidecar) -> bool | None:
    try:
        types = await sidecar.placed_actors()
    except SidecarError:
        return None
    return None if types is None else any(WORKFLOW_TYPE.fullmatch(each) for each in types)
