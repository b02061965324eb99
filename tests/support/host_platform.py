"""`pytest --platform=host tests/e2e`: e2e tests against the `yocaso up` that runs in YOCASO_STATE, `.yocaso` by default.

A pytest plugin. Tests that need a platform of their own, whose model is scripted and whose processes they restart, are
deselected with their count.
"""

from collections.abc import Sequence
from typing import Final

import pytest

OWN: Final = "own"
HOST: Final = "host"
FIXTURE: Final = "platform"
OWN_FIXTURE: Final = "own_platform"
"""What a test names that needs more than an edge and tokens."""
FOLDER: Final = "e2e"
LEFT_OUT: Final = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--platform",
        choices=(OWN, HOST),
        default=OWN,
        help="host: run e2e tests against the running `yocaso up` instead of a platform of their own",
    )


def is_host(config: pytest.Config) -> bool:
    """Whether the tests use a platform that runs already."""
    return config.getoption("--platform") == HOST


def runs_on_host(fixtures: Sequence[str]) -> bool:
    """Whether a test with these fixtures can use any platform."""
    return FIXTURE in fixtures and OWN_FIXTURE not in fixtures


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect e2e tests that need a platform of their own."""
    if not is_host(config):
        return
    left_out = [item for item in items if FOLDER in item.path.parts and not _can_run(item)]
    config.stash[LEFT_OUT] = len(left_out)
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _can_run(item: pytest.Item) -> bool:
    return runs_on_host(getattr(item, "fixturenames", ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if count := terminalreporter.config.stash.get(LEFT_OUT, 0):
        terminalreporter.write_line(
            f"{count} tests need a platform of their own, with a scripted model and processes that "
            "they may restart: `uv run poe test -- tests/e2e` runs them"
        )
