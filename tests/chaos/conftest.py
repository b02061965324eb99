"""One platform for the whole folder; each test restarts only what it killed."""

import json
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.platform import Client, Platform

# A turn that nobody drives is found sooner than in production, so that tests need not wait for it.
ENV = {
    "auth": {"AUTH_KEY_SECRET": "what seals the signing keys of these tests"},
    "llm": {"LLM_SWEEP_SECONDS": "1", "LLM_IDLE_SECONDS": "6"},
}
FIGURES = pytest.StashKey[list[dict[str, Any]]]()


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Everything, started once; supervised, so that what is killed comes back as it does for a user."""
    running = Platform(tmp_path_factory.mktemp("chaos"), offset=18_000, env=ENV)
    running.start()
    yield running
    running.stop()


@pytest.fixture
async def alice(platform: Platform) -> AsyncIterator[Client]:
    """A user of this test alone."""
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
