"""Runs stages in lanes: a free lane takes the next stage, first by rank, then the longest."""

import select
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

from tests.support.stages.plan import Stage
from tests.support.stages.running import GRACE_SECONDS, Result, Running

PROGRESS_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 0.5


def say(text: str) -> None:
    """Print at once, also into a pipe."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class Lanes:
    """A run of stages, within a time limit in seconds.

    With one lane output is live; with more, that of a stage is printed when it has ended, and the progress of all that
    run at least every 30 s. Ctrl-C interrupts what runs, and later stages are not run.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        lanes: int,
        seconds: float,
        *,
        expected: Callable[[Stage], float] = lambda stage: stage.minutes * 60,
        progress_every: float = PROGRESS_SECONDS,
        grace: float = GRACE_SECONDS,
    ) -> None:
        self._waiting = sorted(stages, key=lambda stage: (stage.rank, -expected(stage)))
        self._lanes = lanes
        self._live = lanes == 1 or len(stages) == 1
        self._began = time.monotonic()
        self._end = self._began + seconds
        self._progress_every = progress_every
        self._said = self._began
        self._grace = grace
        self._running: list[Running] = []
        self._results: dict[str, Result] = {}
        self._failures: set[str] = set()

    def run(self) -> list[Result]:
        """Run all stages, also after a failure; results in the order in which they ended."""
        while self._waiting or self._running:
            try:
                self._step()
            except KeyboardInterrupt:
                self._end = time.monotonic()
                for running in self._running:
                    running.interrupt("interrupted")
        return list(self._results.values())

    def _step(self) -> None:
        if time.monotonic() > self._end:
            self._give_up_waiting()
        self._begin_ready()
        select.select(self._running, (), (), LOOK_SECONDS)
        for running in [each for each in self._running if each.has_ended]:
            self._finish(running)
        for running in self._running:
            running.check_limit(self._end)
        if not self._live:
            self._show_failures()
            self._show_progress()

    def _give_up_waiting(self) -> None:
        for stage in self._waiting:
            self._results[stage.name] = Result(stage, problem="not run", begun=False)
        self._waiting = []

    def _begin_ready(self) -> None:
        unfinished = {stage.name for stage in self._waiting}
        unfinished |= {running.stage.name for running in self._running}
        for stage in list(self._waiting):
            if len(self._running) < self._lanes and not unfinished & set(stage.after):
                self._waiting.remove(stage)
                self._begin(stage)

    def _begin(self, stage: Stage) -> None:
        running = Running(stage, live=self._live, grace=self._grace)
        self._running.append(running)
        say(f"== {running.title}" if self._live else f"-- began {running.title}")

    def _finish(self, running: Running) -> None:
        self._running.remove(running)
        result, output = running.finish()
        self._results[result.stage.name] = result
        self._said = time.monotonic()
        if not self._live:
            say(f"== {running.title}\n{output.rstrip()}")
        say(f"== {result.stage.name} {result.verdict} in {result.seconds:.1f}s")

    def _show_failures(self) -> None:
        """Name a test as soon as it fails, long before its stage ends."""
        for running in self._running:
            for test in running.progress.failed:
                if test not in self._failures:
                    self._failures.add(test)
                    say(f"-- FAILED {test}")

    def _show_progress(self) -> None:
        now = time.monotonic()
        if self._running and now >= self._said + self._progress_every:
            self._said = now
            stages = " | ".join(self._describe(running, now) for running in self._running)
            say(f"-- {clock(now - self._began)} {stages} | {len(self._waiting)} stages wait")

    @staticmethod
    def _describe(running: Running, now: float) -> str:
        text = f"{running.stage.name} {clock(now - running.began)}"
        if not running.stage.tests:
            return text
        progress = running.progress
        failed = f", {len(progress.failed)} failed" if progress.failed else ""
        return f"{text} ({progress.done} of {progress.total or '?'} tests{failed})"


def clock(seconds: float) -> str:
    """Minutes and seconds: `2:05`."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02}"
