"""Kills and freezes random processes, sometimes two at once."""

import asyncio
import os
import random
import signal
import time
from dataclasses import dataclass
from typing import Final

from services.cli.stack import StackError
from tests.chaos.faults import frozen, kill, until_ready
from tests.soak.ledger import Fault, Ledger
from tests.support.platform import Platform

MODEL: Final = "model"
BACK_SECONDS: Final = 120.0
FREEZES: Final = ((0.7, 1, 4), (0.2, 4, 15), (0.1, 15, 40))
"""Durations of freezes: their share, and minimum and maximum seconds."""
QUIET: Final = (1.5, 7)
"""Seconds between two faults."""
TWO_AT_ONCE: Final = 0.2
"""Share of faults that hit two processes at once."""
WEIGHTS: Final = {"llm": 3, "llm-daprd": 2, "postgres": 2}


@dataclass
class Nemesis:
    """Injects faults from a seeded source: a seed gives the same faults, at other times."""

    platform: Platform
    ledger: Ledger
    source: random.Random

    async def run(self, seconds: float) -> None:
        """Inject faults for so many seconds, then wait until every process is ready."""
        until = time.monotonic() + seconds
        names = [*self.platform.stack.names, MODEL]
        weights = [WEIGHTS.get(name, 1) for name in names]
        while time.monotonic() < until:
            targets = {*self.source.choices(names, weights)}
            if self.source.random() < TWO_AT_ONCE:
                targets.add(self.source.choice(names))
            await asyncio.gather(*(self._hit(target) for target in sorted(targets)))
            await asyncio.sleep(self.source.uniform(*QUIET))
        await self._all_running()

    async def _hit(self, target: str) -> None:
        seconds = self._frozen_seconds() if self.source.random() < 0.5 else None
        began = time.monotonic()
        kind = "kill" if seconds is None else "freeze"
        try:
            if target == MODEL:
                await self._hit_model(seconds)
            elif seconds is None:
                await kill(self.platform, target)
            else:
                await self._freeze(target, seconds)
            if target != MODEL:
                await asyncio.wait_for(until_ready(self.platform, target), BACK_SECONDS)
        except (AssertionError, StackError, TimeoutError) as error:
            self.ledger.problem(f"{target} did not become ready", f"after {kind}: {error}")
        self.ledger.fault(Fault(target, kind, began, time.monotonic()))

    def _frozen_seconds(self) -> float:
        [(_, least, most)] = self.source.choices(FREEZES, [share for share, _, _ in FREEZES])
        return self.source.uniform(least, most)

    async def _freeze(self, target: str, seconds: float) -> None:
        async with frozen(self.platform, target):
            await asyncio.sleep(seconds)

    async def _hit_model(self, seconds: float | None) -> None:
        pid = self.platform.model_process
        if seconds is not None:
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(seconds)
            os.kill(pid, signal.SIGCONT)
            return
        os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(self.source.uniform(0, 2))
        await asyncio.to_thread(self.platform.restart_model)

    async def _all_running(self) -> None:
        for name in self.platform.stack.names:
            await asyncio.wait_for(until_ready(self.platform, name), BACK_SECONDS)
