"""One stage that runs: its process, its output, its time limit, and what came of it."""

import os
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.support.stages import progress
from tests.support.stages.plan import PYTHON, ROOT, Stage
from tests.support.stages.progress import Progress
from tests.support.stages.reports import Report

GRACE_SECONDS: Final = 60.0
"""Seconds that an interrupted stage has to clean up and to write its report."""


@dataclass(slots=True)
class Result:
    """What came of a stage; `problem` says why it failed, `begun` is False if it was not run."""

    stage: Stage
    seconds: float = 0
    problem: str = ""
    begun: bool = True
    report: Report = field(default_factory=Report)

    @property
    def verdict(self) -> str:
        return self.problem or "passed"


class Running:
    """A process group in a session of its own; `live` output goes to the terminal, other to a file."""

    def __init__(self, stage: Stage, *, live: bool, grace: float = GRACE_SECONDS) -> None:
        self.stage = stage
        self.began = time.monotonic()
        self._grace = grace
        self._folder = tempfile.TemporaryDirectory(prefix="yocaso-stage-")
        folder = Path(self._folder.name)
        self._report = folder / "report.xml"
        self._progress = folder / "progress"
        self._output = None if live else folder / "output.txt"
        self._reason = ""
        self._kill_at = 0.0
        self._process = self._start()
        self._pidfd = os.pidfd_open(self._process.pid)

    def _start(self) -> subprocess.Popen[bytes]:
        env = {**os.environ, **self.stage.env, progress.FILE: str(self._progress)}
        if root := self.stage.env.get("PYTEST_DEBUG_TEMPROOT"):
            Path(root).mkdir(parents=True, exist_ok=True)
        output = self._output.open("wb") if self._output else None
        try:
            return subprocess.Popen(
                self._command(),
                cwd=ROOT,
                env=env,
                stdin=subprocess.DEVNULL if output else None,
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
                start_new_session=True,
            )
        finally:
            if output:
                output.close()

    def _command(self) -> tuple[str, ...]:
        if not self.stage.tests:
            return self.stage.command
        return (*self.stage.command, "-p", progress.PLUGIN, f"--junitxml={self._report}")

    def fileno(self) -> int:
        """Readable, to `select`, once the process has ended."""
        return self._pidfd

    @property
    def title(self) -> str:
        return f"{self.stage.name}: {' '.join(self.stage.command).replace(PYTHON, 'python')}"

    @property
    def progress(self) -> Progress:
        return Progress.read(self._progress)

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def check_limit(self, end_of_run: float) -> None:
        """Interrupt the stage after its limit or at the end of the run; kill it after the grace."""
        now = time.monotonic()
        if self._reason:
            if now > self._kill_at:
                self._signal(signal.SIGKILL)
        elif now > self.began + self.stage.minutes * 60:
            self.interrupt(f"over its limit of {self.stage.minutes * 60:.0f}s")
        elif now > end_of_run:
            self.interrupt("stopped at the time limit of the whole run")

    def interrupt(self, reason: str) -> None:
        """Interrupt it as Ctrl-C does; a second call kills it."""
        self._signal(signal.SIGKILL if self._reason else signal.SIGINT)
        self._reason = self._reason or reason
        self._kill_at = time.monotonic() + self._grace

    def _signal(self, number: signal.Signals) -> None:
        if not self.has_ended:
            os.killpg(self._process.pid, number)

    def finish(self) -> tuple[Result, str]:
        """The result of an ended stage, and its output."""
        code = self._process.wait()
        if self._reason:
            self._end_group()
        seconds = time.monotonic() - self.began
        report = Report.read(self._report) if self.stage.tests else Report()
        problem = self._reason or ("" if code == 0 else f"FAILED ({code})")
        if self.stage.tests and not report.complete:
            problem = f"{problem or 'FAILED'}, without a report{self._last_test()}"
        output = self._output.read_text(errors="replace") if self._output else ""
        os.close(self._pidfd)
        self._folder.cleanup()
        return Result(self.stage, seconds, problem, report=report), output

    def _last_test(self) -> str:
        current = self.progress.current
        return f" during {current}" if current else ""

    def _end_group(self) -> None:
        """Kill what an interrupted stage left in its process group."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
