"""One `yocaso` command per test, stopped at its end."""

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.component.cli.command import Command
from tests.support.wait import wait_until


@pytest.fixture
async def command(tmp_path: Path) -> AsyncIterator[Command]:
    running = Command(tmp_path / "state")
    yield running
    if running.is_running:
        running.signal(signal.SIGTERM)
        await running.ended()
    await wait_until(lambda: not running.processes, 30, "the end of every process")
