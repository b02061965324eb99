"""One supervised platform for all chaos tests; a test restarts what it killed."""

import json
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.faults import until_writable
from tests.support.diagnosis import pytest_runtest_makereport as pytest_runtest_makereport
from tests.support.failpoint_control import FailpointControl
from tests.support.platform import SHORT_RETENTION, Client, Platform
from tests.support.port_offsets import offset_of

FIGURES = pytest.StashKey[list[dict[str, Any]]]()


@pytest.fixture(scope="session")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FailpointControl]:
    """Arms failpoints of the platform's apps; its path fits into a socket address (107 bytes)."""
    with FailpointControl(tmp_path_factory.mktemp("fp") / "s") as running:
        yield running


@pytest.fixture(scope="session")
def platform(request: pytest.FixtureRequest, controller: FailpointControl) -> Iterator[Platform]:
    """The platform, started once; its state folder, with the logs, is kept when a test failed.

    Not under pytest's base folder: a concurrent session removes that folder's permissions for Postgres's user.
    """
    state = Path(tempfile.mkdtemp(prefix="yocaso-chaos-"))
    running = Platform(
        state, offset=offset_of("chaos"), env={"*": controller.environment, **SHORT_RETENTION}
    )
    running.start()
    yield running
    running.stop()
    if not request.session.testsfailed:
        shutil.rmtree(state, ignore_errors=True)


@pytest.fixture
async def writable(platform: Platform) -> None:
    """Waits until the platform has recovered from the previous test."""
    await until_writable(platform)


@pytest.fixture
async def alice(platform: Platform, writable: None) -> AsyncIterator[Client]:
    del writable  # requested for its wait
    async with platform.client(f"alice-{uuid.uuid4().hex[:8]}") as client:
        yield client


@pytest.fixture
def failpoints(controller: FailpointControl) -> Iterator[FailpointControl]:
    """Arms failpoints of the running apps for one test."""
    yield controller
    controller.disarm()


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Records a figure, printed as a JSON line at the end of the session."""
    figures = request.config.stash.setdefault(FIGURES, [])

    def record(**values: Any) -> None:
        figures.append(values)

    return record


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    for values in config.stash.get(FIGURES, []):
        terminalreporter.write_line(json.dumps(values))
