"""One platform for the whole folder; each test restarts only what it killed."""

import json
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.faults import until_begun
from tests.support.platform import Client, Platform

# A turn that nobody drives is found sooner than in production, so that tests need not wait for it.
ENV = {
    "llm": {"LLM_KEPT_SECONDS": "5"},
}
FIGURES = pytest.StashKey[list[dict[str, Any]]]()


@pytest.fixture(scope="session")
def platform(request: pytest.FixtureRequest) -> Iterator[Platform]:
    """Everything, started once; supervised, so that what is killed comes back as it does for a user.

    Not in pytest's own folder: another session closes that to Postgres's user, which then cannot start again. The
    folder, with its logs, is kept when a test failed.
    """
    state = Path(tempfile.mkdtemp(prefix="yocaso-chaos-"))
    running = Platform(state, offset=18_000, env=ENV)
    running.start()
    yield running
    running.stop()
    if not request.session.testsfailed:
        shutil.rmtree(state, ignore_errors=True)


@pytest.fixture
async def probed(platform: Platform) -> str:
    """The conversation of a probe, once what the test before killed answers again."""
    return await until_begun(platform)


@pytest.fixture
async def alice(platform: Platform, probed: str) -> AsyncIterator[Client]:
    """A user of this test alone."""
    del probed  # it is what is waited for
    async with platform.client(f"alice-{uuid.uuid4().hex[:8]}") as client:
        yield client


@pytest.fixture
def socket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short path for the failpoints' socket."""
    return tmp_path_factory.mktemp("fp") / "s"


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Notes a figure; it is printed as one JSON line at the end of the run, whether the test passes or not."""
    figures = request.config.stash.setdefault(FIGURES, [])

    def note(**values: Any) -> None:
        figures.append(values)

    return note


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the figures."""
    for values in config.stash.get(FIGURES, []):
        terminalreporter.write_line(json.dumps(values))
